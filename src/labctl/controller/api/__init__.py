"""The controller's door: JSON lines over a unix socket, and over SSH by way of ``labctl controller connect``.

``words`` says what may be asked (docs/control-api.md says it to people), ``server`` keeps the door,
``verbs`` carries a request out, ``client`` asks, and ``connect`` is the way from standard input to the
socket. Who may pass is decided by the kernel's word on who is at the other end (``peers``), never by what is
said.
"""

VERSION = 1
"""The version of the protocol; a change that an old client would misread raises it, new fields do not."""

SOCKET = "/run/labctl-controller/socket"
"""Where the controller's unit listens; ``inventory.controlling`` says the same, at the cost of pydantic."""

PROGRAM = ("/opt/labctl/labctl/current/bin/python", "-I", "-m", "labctl")
"""How labctl is started on the controller's host by whoever comes by SSH."""

LONGEST_LINE = 64 * 1024
"""Bytes of a request, its newline included."""

ALIVE_S = 15.0
"""The server says at least this often that it is there, while it has nothing else to say."""
