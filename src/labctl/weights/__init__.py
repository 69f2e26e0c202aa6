"""The files of models on hosts: what is where, how it gets there, whether it is still right, what may go.

``host`` is what runs on hosts for the time of one command: standard library only, for Python 3.9 and later.
Everything else runs beside the person who asks, and talks with those programs.
"""
