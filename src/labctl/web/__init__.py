"""The rack in a browser, and its numbers for monitoring: a process of its own beside the controller.

1. It knows what the controller says (its socket), what the health checks last left (a file) and a table
   that was made from the rack file. It connects to no host, runs no check and has no key but the hashes of
   its own. Looking, however often, wakes nothing.
2. The controller's word is asked for once for everybody who looks, at most every second, and only while
   somebody does (``sight``). Browsers get the page anew when it changed, as server-sent events (``stream``).
3. Whoever may look, may look at all of it. On loopback, under a name that only means this machine, nobody is
   asked for a key; anywhere else everybody is (``guard``). A page of another site can make a browser ask us,
   under a name of its own for our address: so the name decides, not the address alone.
4. An order needs a session that was opened with a key that acts, the session's token, and a page of ours that
   it comes from (``guard``, ``orders``). It is asked back first. What the store refuses stays refused: the
   controller lets this process force nothing.
5. Nothing is loaded from elsewhere and nothing inline runs: the policy that is sent with each page forbids
   it. Without scripts the page still shows everything and every button leads to a form.

``app.make`` puts it together; ``serving`` runs it; ``metrics`` is what Prometheus reads.
"""
