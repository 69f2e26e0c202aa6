"""Plan and apply: the parent spawns worker processes which hold gevent and pyinfra, and draws their events."""
