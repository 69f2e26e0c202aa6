"""Our own pyinfra operations and facts, for where the stock ones are not safe or not quick enough.

An operation here asks its host one question (a fact: one cheap command that never fails, whatever is
absent), decides in Python, and yields at most one command, or nothing when nothing is to change. So a plan
costs one round trip, and a change is one command which either happened or did not. They run under plain
``pyinfra`` too. Call them with keyword arguments and always with ``name=``.
"""
