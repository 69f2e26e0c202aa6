"""Who may ask the gateway for what: keys, rates, quotas, and what secures the connections.

keys       who it is, and how much of it
audit      who woke what and who was turned away, in the log that is kept
listening  where a gateway without keys may listen
tls        the certificate, and its change under way
"""
