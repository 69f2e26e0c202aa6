"""systemd units for the services of the inventory.

Theory: a service gets its own user, no capabilities, a read-only system and two folders of its own
(``/var/lib/labctl-NAME``, ``/var/cache/labctl-NAME``); everything beyond that is a reasoned exception. GPUs
are the main one: on a host whose inventory lists GPUs the unit names the device groups of NVIDIA and AMD
instead of hiding all devices, because ``PrivateDevices`` (or a lone ``ProtectClock``) hides GPUs without an
error. Engines that may compile at run time (any ``Command``, anything on a GPU) keep writable-and-executable
memory. A service that crashes five times in five minutes stays down: a restart loop on a GPU ends in a lost
driver.

Values from the inventory never reach a shell, and systemd's own expansion is switched off by escaping: what
the inventory says is, byte for byte, what the program gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from labctl import render
from labctl.domain.problem import LabctlError
from labctl.inventory import Command, Host, Ollama, Rack, Service, Sglang, TabbyApi, Vllm
from labctl.inventory.services import Engine, Program
from labctl.render.credentials import Credential
from labctl.render.engines.ollama import PORT
from labctl.render.launch import ConfigFile, Launch, launch

SERVICE_USER = "labctl-svc"
UNIT_DIR = "/etc/systemd/system"
# Second line of a service's unit: units of other subjects lack it, so they are never taken for a service's.
MARKER = "# labctl service:"

DEVICE_GROUPS = (
    "nvidia",
    "nvidia-frontend",
    "nvidiactl",
    "nvidia-modeset",
    "nvidia-uvm",
    "nvidia-caps",
    "drm",
    "kfd",
)
# Who renders the unit of a kind of service: MODULE:FUNCTION of (rack, host, service), imported when asked.
KINDS = {
    "command": "labctl.render.units:command",
    "llama-server": "labctl.render.cluster:llama_server",
    "vllm": "labctl.render.cluster:vllm",
    "sglang": "labctl.render.units:engine",
    "tabbyapi": "labctl.render.units:engine",
    "ollama": "labctl.render.units:engine",
    "llama-swap": "labctl.render.llamaswap.unit:llama_swap",
    "rpc-server": "labctl.render.cluster:rpc_server",
    "bifrost": "labctl.render.gateways.units:gateway",
    "litellm": "labctl.render.gateways.units:gateway",
    "olla": "labctl.render.gateways.units:gateway",
    "pgvector": "labctl.render.gateways.units:pgvector",
}
# A service may start in these but write there only if a drop-in says so.
_SYSTEM = ("/usr/", "/etc/", "/boot/", "/bin/", "/sbin/", "/lib/", "/dev/", "/proc/", "/sys/", "/run/", "//")
_LOCAL = (*_SYSTEM, "/opt/labctl/")
_HOMES = ("/home/", "/root/", "/run/user/")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit to install: its name as systemctl takes it, the text of its file, and what its program reads.

    ``secrets`` and ``files`` are written before it, and it is restarted when one of them changes.
    """

    name: str
    content: str
    secrets: tuple[Credential, ...] = ()
    files: tuple[ConfigFile, ...] = ()

    @property
    def path(self) -> str:
        """Return where its file lies on the host."""
        return f"{UNIT_DIR}/{self.name}"


def unit_name(service: Program) -> str:
    """Return the name of a service's unit."""
    return f"labctl-{service.name}.service"


def quoted(word: str) -> str:
    """Return ``word`` as one word of a unit file, where neither ``%`` nor a quote means anything any more."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def command_line(argv: tuple[str, ...]) -> str:
    """Return ``argv`` as the value of ``ExecStart=``; beside quoting, ``$`` would be expanded there."""
    return " ".join(quoted(word).replace("$", "$$") for word in argv)


def service(rack: Rack, host: Host, wanted: Service) -> Unit:
    """Return the unit of any service of ``host``; ``KINDS`` says who renders it."""
    where = KINDS.get(wanted.kind)
    if where is None:
        raise LabctlError(f"labctl cannot run a {wanted.kind} yet", host=host.name)
    module, _, function = where.partition(":")
    render_unit: Callable[[Rack, Host, Service], Unit] = getattr(import_module(module), function)
    return render_unit(rack, host, wanted)


def gpu_groups(host: Host) -> tuple[str, ...]:
    """Return the groups that own GPU devices, which the services of ``host`` join; empty without GPUs."""
    return ("video", "render") if has_gpu(host) else ()


def command(rack: Rack, host: Host, wanted: Command) -> Unit:
    """Return the unit of a program that the inventory gives by its argv."""
    sandbox = Sandbox(
        paths=(*wanted.argv, wanted.working_dir or ""),
        gpu=has_gpu(host),
        jit=True,
        lock_memory=has_gpu(host),
        working_dir=wanted.working_dir,
    )
    return unit(wanted, f"Service {wanted.name} of the rack", wanted.argv, sandbox)


def engine(rack: Rack, host: Host, wanted: Engine | Ollama) -> Unit:
    """Return the unit of an engine that has one of its own.

    Raises:
        LabctlError: no build fits, or a card is named whose UUID is not known.
    """
    start = launch(rack, host, wanted, port=str(wanted.port or PORT))
    return unit(wanted, purpose(wanted), start.argv, sandbox_of(host, wanted, start))


def purpose(wanted: Engine | Ollama) -> str:
    """Return what the unit of an engine says that it is for."""
    served = f" with {wanted.model}" if isinstance(wanted, Engine) else ""
    kind: str = getattr(wanted, "kind", "engine")
    return f"{kind} {wanted.name}{served}"


def sandbox_of(host: Host, wanted: Engine | Ollama, start: Launch) -> Sandbox:
    """Return the sandbox of an engine that has a unit of its own."""
    return Sandbox(
        paths=start.reads,
        gpu=has_gpu(host),
        jit=has_gpu(host) or isinstance(wanted, Vllm | Sglang | TabbyApi),
        lock_memory=True,
        environment=start.env,
        secrets=start.secrets,
        files=start.files,
        before=start.before,
        marks=start.marks,
    )


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a service may see and do beyond nothing.

    ``paths`` are those that it must be able to read, ``gpu`` shows it the cards, ``jit`` allows memory
    that is writable and executable, ``environment`` yields to the inventory's own. ``secrets`` reach it as
    credentials or variables, ``files`` are its configuration, ``before`` are commands that come first.
    ``marks`` are comments: another build or model file under the same path means another text, hence exactly
    one restart. ``reloads``: it reads its configuration again on SIGHUP, ``stop_signal`` ends it where not
    SIGTERM. ``relations`` and ``settings`` are further lines of the sections [Unit] and [Service],
    ``device_groups`` is what ``gpu`` shows, and ``marker`` tells whose unit it is.
    """

    paths: tuple[str, ...]
    gpu: bool
    jit: bool
    lock_memory: bool
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[Credential, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    marks: tuple[str, ...] = ()
    reloads: bool = False
    relations: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    device_groups: tuple[str, ...] = DEVICE_GROUPS
    marker: str = MARKER
    stop_signal: str | None = None


def has_gpu(host: Host) -> bool:
    """Return whether services of ``host`` may find a GPU there."""
    return bool(host.gpus) or host.unified_memory_gib is not None


def unit(wanted: Program, description: str, argv: tuple[str, ...], sandbox: Sandbox) -> Unit:
    """Return the unit that runs ``argv`` for a service, in this sandbox and no wider one."""
    in_home = any(home in f"{path}/" for path in sandbox.paths for home in _HOMES)
    start_in = sandbox.working_dir
    writable = start_in if start_in and not f"{start_in}/".startswith(_SYSTEM) else None
    content = render.text(
        "service.service.j2",
        marker=sandbox.marker,
        relations=sandbox.relations,
        settings=sandbox.settings,
        name=wanted.name,
        description=description,
        user=wanted.user,
        exec_start=command_line(argv),
        # The slash keeps a backslash at the end from joining this line with the next.
        working_dir=f"{start_in.replace('%', '%%')}/" if start_in else f"%S/labctl-{wanted.name}",
        writable=quoted(f"-{writable}") if writable else None,
        environment=_environment(wanted, sandbox.environment),
        device_groups=sandbox.device_groups,
        protect_home="read-only" if in_home else "yes",
        gpu=sandbox.gpu,
        jit=sandbox.jit,
        lock_memory=sandbox.lock_memory,
        marks=sandbox.marks,
        mounts=" ".join(map(quoted, _mounts(sandbox.paths))),
        before=[command_line(argv) for argv in sandbox.before],
        credentials=[one for one in sandbox.secrets if not one.environment],
        variables=[one.path for one in sandbox.secrets if one.environment],
        reloads=sandbox.reloads,
        stop_signal=sandbox.stop_signal,
    )
    return Unit(unit_name(wanted), content, sandbox.secrets, sandbox.files)


def _mounts(paths: tuple[str, ...]) -> list[str]:
    """Return the paths whose file systems must be there before the service: models above all."""
    return sorted({path for path in paths if path.startswith("/") and not path.startswith(_LOCAL)})


def _environment(wanted: Program, derived: Mapping[str, str]) -> list[str]:
    """Return the values of ``Environment=``; the inventory's own words win over derived ones."""
    own = [quoted(f"{name}={value}") for name, value in sorted({**derived, **wanted.env}.items())]
    if wanted.user != SERVICE_USER:
        return own
    return [f'"HOME=%S/labctl-{wanted.name}"', f'"XDG_CACHE_HOME=%C/labctl-{wanted.name}"', *own]
