"""The gateway's table: everything that it knows of the rack before it looks at it.

labctl renders it from the inventory (``render.gateway``) as one JSON file, and the gateway reads nothing
else: no rack file, no addresses of BMCs, no SSH keys. Secrets stand in it as hashes, or as the names of files
beside it.

Times are in seconds, sizes in bytes, power in watts. Empty and 0 mean "not stated" or "no limit", as each
field says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from labctl.domain.budget import Rack as WattRack


class Waiting(StrEnum):
    """What a client gets while its model's host wakes or its model loads."""

    COMMENTS = (
        "comments"  # SSE comments with the remaining time, which clients ignore; others wait in silence
    )
    LOADING = "loading"  # deltas of `reasoning_content` that tell how far it is, as llama-swap sends them
    SILENT = "silent"  # nothing until the answer comes
    REFUSE = "refuse"  # 503 with Retry-After at once; the host wakes all the same


class Kind(StrEnum):
    """What an upstream is, for what differs in how it is asked."""

    LLAMA_SERVER = "llama-server"
    LLAMA_SWAP = "llama-swap"
    VLLM = "vllm"
    SGLANG = "sglang"
    OLLAMA = "ollama"
    TABBY = "tabbyapi"
    COMMAND = "command"
    OUTSIDE = "outside"  # a cloud, or another gateway: no host of this rack


@dataclass(frozen=True, slots=True)
class Served:
    """One model at one upstream.

    ``asked_as`` is the name that the upstream knows it by. ``load_s`` is how long loading may take, 0 where
    it is loaded whenever its host is ready. ``first_byte_s`` is how long a request may wait for the first
    byte once it was sent, loading included; ``whole_s`` is how long the whole answer may take.
    """

    model: str
    upstream: str
    asked_as: str
    load_s: float = 0.0
    first_byte_s: float = 600.0
    whole_s: float = 7200.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server of models: ``name`` is unique, ``host`` a host of the rack (empty for one outside of it).

    ``base_path`` goes before a request's path (``/api`` for https://openrouter.ai/api/v1/...).
    ``key_file`` is the file beside the table with the key that it asks for. ``slots`` is how many requests
    it gets at a time (0: no limit) and ``queue`` how many more of each key may wait here. ``passes`` are the
    methods and paths that are let through below /hosts/NAME/, such as "POST /completion", and ``wakes`` those
    of them that may wake its host. ``ca_file`` is the file beside the table with the certificates that it is
    checked by (empty: the system's).
    """

    name: str
    host: str
    kind: Kind
    address: str
    port: int
    tls: bool = False
    ca_file: str = ""
    base_path: str = ""
    key_file: str = ""
    slots: int = 0
    queue: int = 256
    passes: tuple[str, ...] = ()
    wakes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model that clients may ask for; ``kind`` is chat, embedding, rerank or vision.

    ``wait_s`` is how long a request may wait before it goes to an upstream: for a wake, for a slot.
    ``waiting`` overrides the key's, where it is stated. ``last_resort`` names the upstreams outside of the
    rack that are asked when no host can serve, best first.
    """

    id: str
    kind: str
    wait_s: float
    aliases: tuple[str, ...] = ()
    waiting: Waiting | None = None
    last_resort: tuple[str, ...] = ()
    listed: bool = True
    context: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the rack that serves: ``sleeps``: it may be put to sleep; ``wakeable``: something wakes it.

    ``boot_s`` is how long a wake may take where nothing was learnt, ``watts`` what it draws under load.
    """

    name: str
    wakeable: bool
    sleeps: bool
    boot_s: float
    watts: float = 0.0
    quiet_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Key:
    """Who may ask: ``sha256`` is the hash of the key in hex, ``name`` what logs and metrics call it.

    ``models`` are ids that it may ask for (empty: all). ``per_minute`` requests (0: no limit), ``at_once``
    requests at a time (0: no limit), ``wakes_per_hour`` (-1: no limit, 0: it wakes nobody). ``outside``: it
    may be served by upstreams outside of the rack. ``sees``: it may read metrics and the status of hosts.
    """

    name: str
    sha256: str
    models: tuple[str, ...] = ()
    per_minute: int = 0
    at_once: int = 0
    wakes_per_hour: int = -1
    waiting: Waiting = Waiting.COMMENTS
    outside: bool = False
    sees: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost.

    ``head_s`` is for a whole head, ``body_s`` without a byte of a body. A body brings ``body_rate`` bytes/s
    at least, on average since ``body_s`` after its beginning; time in which we held it back is not counted.
    """

    head_bytes: int = 64 * 1024
    headers: int = 100
    head_s: float = 10.0
    body_s: float = 10.0
    body_rate: float = 1024.0
    idle_s: float = 75.0
    json_bytes: int = 64 * 1024 * 1024  # a body that is read whole
    form_bytes: int = 32 * 1024 * 1024  # of a form before its field `model`: OpenAI's files are 25 MB
    upload_bytes: int = 1024 * 1024 * 1024  # a body that is passed on as it comes
    held_bytes: int = 256 * 1024 * 1024  # all bodies that are held at a time
    clients: int = 4096
    drain_s: float = 900.0
    connect_s: float = 5.0
    say_every_s: float = 5.0  # while somebody waits
    say_after_s: float = 2.0  # a quick refusal still gets its own status


@dataclass(frozen=True, slots=True)
class Table:
    """See the module's text. Without ``keys`` everybody is let in, which only a listener on loopback may do.

    ``anonymous`` is then whom requests count for. ``certificate`` and ``private_key`` are files beside the
    table (empty: no TLS). ``watts`` is what the power budget counts.
    """

    rack: str
    listen: str
    port: int
    models: tuple[Model, ...]
    upstreams: tuple[Upstream, ...]
    served: tuple[Served, ...]
    hosts: tuple[Host, ...]
    watts: WattRack
    keys: tuple[Key, ...] = ()
    anonymous: Key = Key("anonymous", "")
    limits: Limits = field(default_factory=Limits)
    certificate: str = ""
    private_key: str = ""
    store: str = ""  # the file of the store
    store_url_file: str = ""  # or the file beside the table with the address of its database
    controller: str = ""  # the controller's socket, to be nudged by a wish; empty: it is on another machine
