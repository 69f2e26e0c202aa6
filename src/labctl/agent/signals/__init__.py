"""What counts as use of a host, signal by signal.

Rules. A signal says busy or quiet with a reason, or that it cannot be read, which counts as busy: nothing is
ever taken for quiet because nobody could look. Each is one small class with a name (as the inventory calls
it) and one method, ``look``; it decides by what it reads and nothing else, and it changes nothing: no
question starts a model, renews a time limit, wakes a card or takes a lock. It sees the host below ``root``,
so that a tree of files can stand for one.

All run as the unprivileged user of the agent. What only root may see is either seen another way (who owns a
connection: by the sessions that logind knows) or asked of one narrow verb through sudo, and then only when it
changed (the users' crontabs).

``every.every`` gives the signals of a host, ``board.Board`` looks at all of them with a deadline each.
"""
