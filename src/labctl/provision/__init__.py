"""Plan and apply: the parent spawns workers, which hold gevent and pyinfra, and draws their events."""
