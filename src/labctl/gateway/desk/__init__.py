"""The life of a request: who asks, which host, lease, wait, failover, end."""
