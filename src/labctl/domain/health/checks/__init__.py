"""The checks: one small class for each thing that can be wrong, a module for each part of a host.

``judging`` holds the lists of all. Which evidence a check needs, and what it says without it, stands
in its class's text; ``docs/health.md`` is the table for people.
"""
