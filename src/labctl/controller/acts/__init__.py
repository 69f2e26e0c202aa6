"""What the controller does to hosts, one act a module; ``carry`` finds the one for an action.

An act runs in a thread of its own, for one host. It writes its intent before and its outcome after each
effect, and looks again at whatever could have changed while it waited: the order of ``sleep`` is committed
under the row's version, ``mend`` cuts power only after a fresh look.
"""
