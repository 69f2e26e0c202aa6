"""What runs on a host: one shot, no daemon, no open port, no third-party package.

The controller reaches it with an SSH key that can do nothing else: the key's line in ``authorized_keys``
forces the command ``/usr/local/lib/labctl/agent.pyz --forced``, which reads what the controller wanted from
``SSH_ORIGINAL_COMMAND`` and does it if, and only if, it is one of the few orders in ``main.ORDERS``.

``report`` runs as the unprivileged user ``labctl-agent`` and needs no more than that: what only root may see
is null in it, with the reason. What changes a host needs root (``caps``). For that the agent calls itself by
``sudo -n`` with one absolute command line each and no wildcard in it, so that sudoers can name exactly that
line and nothing more. Orders with somebody's numbers in them do not go through that door at all: the operator
gives them, who is root.

Everything here that is shipped to hosts uses the standard library alone, imports relatively, and is written
for Python 3.9 and later: a host's Python is the distribution's, not ours. ``build``, ``prune`` and ``access``
stay here. Of ``labctl.domain`` go along the decisions about caps, which a host makes alone at every boot.
"""
