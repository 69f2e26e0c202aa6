"""``labctl lab``: try labctl with no hardware, on real Debian hosts that live on this machine.

Each command attaches to the lab by its name and hands the order on; what can be done and how is in
``labctl.lab``. Nothing is decided here but where labs keep their files, and what to suggest next.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import printer
from labctl.domain.outcome import counted
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.lab import Lab, LabSpec


_USUAL = "lab"


def _complete_hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        hosts = _attach(str(ctx.params.get("name") or _USUAL)).spec.hosts
    except (LabctlError, OSError):
        return []
    return [host.name for host in hosts if host.name.startswith(incomplete)]


_NAME = click.option("--name", default=_USUAL, show_default=True, help="Which lab, where you run several.")
_FAULTS = (
    "cut",
    "mend",
    "slow",
    "freeze",
    "thaw",
    "kill",
    "start",
    "fill-disk",
    "free-disk",
    "stop-sshd",
    "cont-sshd",
)
_SLEEP = ("no-suspend", "wakes-itself", "deaf", "loses-packets", "slow-boot", "sleep-heal")
_CARD_FAULTS = ("lost", "hang", "refuse", "blocked", "mismatch", "unloaded", "nouveau", "heal")
_CARDS = ("gpu-remove", "gpu-restore", *(f"gpu-{kind}" for kind in _CARD_FAULTS))
_WHAT = """\
\b
WHAT:
  cut, mend            pull its network cable, plug it in again
  slow                 make the cable slow (--delay, --rate; mend makes it fast)
  freeze, thaw         stop every process where it stands, let them go on
  kill, start          cut its power, boot it (or wake it up)
  fill-disk, free-disk leave no byte free on its disk, give the space back
  stop-sshd, cont-sshd stop (SIGSTOP) its sshd, let it go on
  no-suspend           its kernel refuses to sleep
  wakes-itself         it sleeps, and wakes by itself after --value seconds (2)
  deaf                 its network card takes no notice of magic packets
  loses-packets        of a hundred magic packets its card misses --value
  slow-boot            it boots --value seconds later
  sleep-heal           take these five away
  gpu-remove           pull the graphics card --gpu; it is gone at once
  gpu-restore          put all pulled cards back: they are there after the next boot
  gpu-lost, gpu-hang   the card --gpu fell off the bus, or answers no more
  gpu-refuse           the card --gpu takes no power cap
  gpu-blocked, gpu-unloaded, gpu-mismatch
                       NVIDIA's driver: access blocked, not loaded, older than its library
  gpu-nouveau          the free driver holds the cards, at boot too, until it is blacklisted
  gpu-heal             take lost, hang, refuse and blocked away; the rest goes with a boot
"""


@click.group()
def lab() -> None:
    """Run a virtual rack: real Debian hosts on this machine, to try labctl with no hardware.

    Each host runs systemd, sshd and apt, with an address, a MAC and an SSH host key of its own, on a
    network that only this machine reaches. Needs root on a Debian or Ubuntu machine; without a package that
    it needs, it says which. `labctl lab down` leaves nothing behind but the cached Debian trees.
    """


@lab.command()
@click.argument("rackfile", required=False, type=click.Path(path_type=Path))
@click.option(
    "--hosts", type=int, default=5, show_default=True, help="How many hosts, where no RACKFILE is given."
)
@click.option(
    "--suite",
    type=click.Choice(["bookworm", "trixie", "mixed"]),
    default="mixed",
    show_default=True,
    help="Debian 12, Debian 13, or both in turn.",
)
@click.option(
    "--vm",
    "machines",
    metavar="HOST",
    multiple=True,
    help="Run HOST as a virtual machine that truly suspends (QEMU, without graphics cards). Repeatable.",
)
@click.option("--mirror", metavar="URL", help="Debian archive to build from. [default: the machine's own]")
@_NAME
def up(
    rackfile: Path | None, hosts: int, suite: str, mirror: str | None, machines: tuple[str, ...], name: str
) -> None:
    """Boot a virtual rack: the hosts of RACKFILE, or of one that is written for you.

    The rack runs until `labctl lab down`. Repeating the command starts hosts that are off.
    """
    from labctl.inventory import load_rack
    from labctl.lab import Lab, wheels
    from labctl.lab.preflight import require_able
    from labctl.lab.rackfile import Homes, not_imitated, spec_of, write_rack_file
    from labctl.lab.spec import require_name

    require_name(name)
    require_able(machines=bool(machines))
    written = rackfile or _state() / name / "rack" / "inventory" / "rack.py"
    if rackfile is None and not write_rack_file(written, hosts):
        printer.err(f"using the rack file that is there: {written}")
    elif not written.exists():
        raise LabctlError(f"there is no rack file {written}", hint="leave it out, and one is written for you")
    loaded = load_rack(written)
    spec = spec_of(loaded, name, suite, Homes(_state(), wiring.cache_home() / "lab"), mirror, machines)
    if models := not_imitated(loaded):
        printer.err(f"the lab has no imitation of {', '.join(models)}: left out")
    if loaded.rack.controller is not None and loaded.rack.controller.wheels == wheels.INSIDE:
        printer.err("labctl's own packages for the controller's host")
        wheels.make(spec.cache_dir)
    Lab(spec).up(printer.err, stays=True)
    verb = "is" if len(spec.hosts) == 1 else "are"
    printer.out(f"{counted(len(spec.hosts), 'host')} {verb} up. The rack file:")
    printer.out(f"  {written}")
    printer.out("Next:")
    for command in _next_commands(written, spec):
        printer.out(f"  {command}")


@lab.command()
@click.argument("module", required=False, type=click.Path(path_type=Path))
def engines(module: Path | None) -> None:
    """Make engines and tiny models for virtual hosts, and write their pins to MODULE.

    MODULE is a Python file that a rack file imports (by default inventory/lab_engines.py). Hosts that boot
    after this find the files at /opt/lab/mirror: the real llama-server, a double of llama-swap, and models
    whose answers are noise.
    """
    from labctl.lab import mirror

    written = module or Path("inventory/lab_engines.py")
    if written.suffix != ".py" or not written.stem.isidentifier():
        raise LabctlError(f"{written.name} cannot be imported", hint="name it like lab_engines.py")
    made = mirror.make(wiring.cache_home() / "lab", printer.err)
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(mirror.recipe(made, written.stem))
    printer.out(f"{written} names them with their pins; inventory/serving.py shows a rack that uses it")


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(*, as_json: bool) -> None:
    """List the labs of this machine and the state of their hosts."""
    rows = [row for found in _labs() for row in _rows(found)]
    if as_json:
        printer.emit_json(rows)
    elif not rows:
        printer.err("there is no lab on this machine; boot one with: labctl lab up")
    else:
        columns = ("lab", "host", "address", "suite", "state", "faults")
        shown = [row | {"faults": ", ".join(row["faults"])} for row in rows]
        printer.table(columns, [[row[column] for column in columns] for row in shown])


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("host", shell_complete=_complete_hosts)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_NAME
def ssh(host: str, command: tuple[str, ...], name: str) -> int:
    """Log in to HOST, or run a COMMAND there (put -- before it).

    One word is a line for the shell there, several are a program and its arguments. The host key is checked
    against the one that the lab gave to the host.
    """
    words = (shlex.join(command),) if len(command) > 1 else command
    return subprocess.call(_attach(name).ssh_argv(host, *words))


@lab.command()
@click.option("--all", "every", is_flag=True, help="End every lab of this machine.")
@_NAME
def down(*, every: bool, name: str) -> None:
    """End a virtual rack; sweeps up, too, after one that was killed.

    Rack file, keys and cached Debian trees stay for the next time.
    """
    for found in _labs() if every else (_attach(name),):
        found.down()
        printer.err(f"the lab {found.spec.name} is down")


@lab.command()
@click.argument("hosts", nargs=-1, shell_complete=_complete_hosts)
@click.option("--all", "every", is_flag=True, help="Reset all hosts.")
@click.option("--new-host-key", is_flag=True, help="Come back with another SSH host key, as if reinstalled.")
@_NAME
def reset(*, hosts: tuple[str, ...], every: bool, new_host_key: bool, name: str) -> None:
    """Throw away everything that happened on HOSTS and boot them fresh, with the same SSH host key."""
    found = _attach(name)
    if every == bool(hosts):
        raise LabctlError("name the hosts to reset, or give --all")
    for host in [host.name for host in found.spec.hosts] if every else hosts:
        found.reset(host, new_host_key=new_host_key)
        printer.err(f"{host} is fresh")


@lab.command(epilog=_WHAT)
@click.argument("host", shell_complete=_complete_hosts)
@click.argument("what", metavar="WHAT", type=click.Choice((*_FAULTS, *_SLEEP, *_CARDS)))
@click.option("--delay", type=int, default=0, help="For slow: milliseconds added to each round trip.")
@click.option("--rate", type=int, default=0, help="For slow: kilobits a second, each way.")
@click.option("--gpu", type=int, default=0, help="For gpu-...: which card, counted from 0 as declared.")
@click.option("--value", type=float, help="For the faults of sleep: how many seconds, or of a hundred.")
@_NAME
def fault(  # noqa: PLR0913
    host: str, what: str, delay: int, rate: int, gpu: int, value: float | None, name: str
) -> None:
    """Break HOST, or heal it."""
    found = _attach(name)
    if what in _SLEEP:
        found.sleep_fault(host, what, value)
    elif what == "slow":
        if not delay and not rate:
            raise LabctlError("how slow? give --delay, --rate or both")
        found.slow(host, delay_ms=delay, rate_kbit=rate)
    elif what == "gpu-remove":
        found.remove_gpu(host, gpu)
    elif what == "gpu-restore":
        found.restore_gpus(host)
    elif what in _CARDS:
        found.gpu_fault(host, gpu, what.removeprefix("gpu-"))
    else:
        getattr(found, what.replace("-", "_"))(host)
    printer.err(f"{host}: {what} done")


@lab.command()
@click.argument("host", required=False, shell_complete=_complete_hosts)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_NAME
def packets(*, host: str | None, as_json: bool, name: str) -> None:
    """List the magic packets that were seen on the rack's network, and what came of each.

    Those for HOST's network card, or all.
    """
    found = _attach(name)
    heard = found.packets(found.spec.host(host).name if host else None)
    if as_json:
        printer.emit_json(heard)
    elif not heard:
        printer.err("no magic packet was seen")
    else:
        columns = ("host", "mac", "source", "ethertype", "port", "outcome")
        shown = [["" if packet[key] is None else str(packet[key]) for key in columns] for packet in heard]
        printer.table(columns, shown)


def _rows(found: Lab) -> Iterator[dict[str, Any]]:
    states = found.hosts() if found.is_up() else {}
    for host in found.spec.hosts:
        seen = states.get(host.name, {"state": "off", "faults": []})
        described = {"address": host.address, "mac": host.mac, "suite": host.suite}
        yield {"lab": found.spec.name, "host": host.name, **described, **seen}


def _next_commands(rackfile: Path, spec: LabSpec) -> tuple[str, ...]:
    path = shlex.quote(str(rackfile))
    which = "" if spec.name == _USUAL else f" --name {spec.name}"
    return (
        f"labctl enroll --all --inventory {path}",
        f"labctl apply {path}",
        f"labctl lab ssh {spec.hosts[0].name}{which}",
        f"labctl lab down{which}",
    )


def _state() -> Path:
    return wiring.state_home() / "lab"


def _attach(name: str) -> Lab:
    from labctl.lab import Lab
    from labctl.lab.spec import require_name

    require_name(name)
    return Lab.attach(_state(), name)


def _labs() -> tuple[Lab, ...]:
    specs = sorted(_state().glob("*/spec.json"))
    return tuple(_attach(path.parent.name) for path in specs)
