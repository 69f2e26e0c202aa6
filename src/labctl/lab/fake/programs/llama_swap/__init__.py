"""A stand-in for llama-swap (250) on hosts of the lab: the same words, states and manners; see ``main``.

It is packed with PyYAML into one file that a host's own Python runs, and shares no code with labctl.
"""
