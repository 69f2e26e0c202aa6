"""Health as it is looked after: look at all hosts at once, judge, remember, tell.

``looking`` asks the hosts that are awake and judges what they say; it wakes nobody. ``running`` is a run of
``labctl health --cron``: under a lock it looks, decides what is news (``domain.health.flaps``), writes that
down together with the letters that tell it, and only then sends them. ``outbox`` sends, and knows what was
sent. Nothing here loses a letter: it is written before it is sent, and crossed out only after.
"""
