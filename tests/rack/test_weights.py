"""Files of models on real hosts: from one to all through firewalls, cut, resumed, verified, collected."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rack_driving import labctl

from labctl import wiring
from labctl.inventory import load_rack
from labctl.lab import Lab, LabHost
from labctl.lab.processes import wait_until
from labctl.weights import places
from labctl.weights.news import Moved, News, Result, Wish
from labctl.weights.pull import pull

pytestmark = pytest.mark.rack

MIB = 1 << 20
SIZE = 60 * MIB
FOLDER = "/srv/models/big"
PATH = f"{FOLDER}/big.gguf"
KILL = (
    "for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n != $$ ] && "
    "tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'labctl[.]weights' && kill -9 $n; done; :"
)
RUNS = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'labctl[.]weights'"


class Weights:
    """Some lent hosts that all want one model, which lies on the first of them."""

    def __init__(self, rack: Lab, chosen: Sequence[LabHost], file: Path) -> None:
        self.rack, self.chosen, self.file = rack, chosen, file
        self.names = [host.name for host in chosen]
        self.content = os.urandom(SIZE)
        self.declare(hashlib.sha256(self.content).hexdigest())
        (rack.root(self.names[0]) / "root/big.gguf").write_bytes(self.content)

    def declare(self, sha256: str = "", models: str = "") -> None:
        service = 'Command(name="any", argv=["/bin/sleep", "inf"], model="big")' if sha256 else ""
        if sha256:
            models = f'Model(id="big", source="file:///root/big.gguf", sha256="{sha256}")'
        hosts = "".join(
            f'    Host(name="{h.name}", address="{h.address}", services=[{service}]),\n' for h in self.chosen
        )
        self.file.write_text(
            "from labctl.inventory import Command, Host, Model, Rack, Ssh\n"
            'rack = Rack(name="test", ssh=Ssh(user="admin", key="keys/operator"), '
            f"models=[{models}], hosts=[\n"
            f"{hosts}])\nglobals().update(rack.groups())\n"
        )

    def cli(self, *argv: str, code: int = 0) -> dict:
        done = labctl("models", *argv, "-i", str(self.file), "--json", timeout=200)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def pull(self, on_news: Callable[[News], None] = lambda news: None) -> Result:
        loaded = load_rack(self.file)
        return pull(loaded, Wish(places.to_pull(loaded, (), ())), wiring.talker(), on_news)

    def run(self, name: str, script: str) -> str:
        done = self.rack.run(name, ["sh", "-c", script], timeout=60)
        return done.stdout.strip()

    def right(self, *names: str) -> None:
        wanted = hashlib.sha256(self.content).hexdigest()
        for name in names or self.names:
            assert self.run(name, f"sha256sum <{PATH}").split()[0] == wanted
            assert self.run(name, f"ls -A {FOLDER}") == "big.gguf"


@pytest.fixture
def weights(rack: Lab, hosts, rack_file: Callable[..., Path]) -> Weights:
    chosen = hosts(4)
    return Weights(rack, chosen, rack_file(chosen))


def apply_changes(weights: Weights, *only: str) -> int:
    argv = ["apply", str(weights.file), "--yes", "--json", *(f"--only={name}" for name in only)]
    done = labctl(*argv, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(host["changed"] for host in json.loads(done.stdout)["hosts"])


def test_one_download_reaches_all_through_their_firewalls_and_apply_has_nothing_left_to_do(
    weights: Weights,
) -> None:
    apply_changes(weights, "base")
    done = weights.cli("pull")
    assert {host["status"] for host in done["hosts"]} == {"ok"}
    assert done["brought"] == 4
    weights.right()
    for host in done["hosts"]:
        assert host["sent_bytes"] <= 2 * SIZE
        assert weights.run(host["host"], RUNS) == "0"
        sets = weights.run(host["host"], "nft list set inet labctl transfers4")
        assert "type ipv4_addr" in sets and "elements" not in sets
        assert weights.run(host["host"], f"stat -c '%U:%G %a' {PATH}") == "root:root 644"
    assert weights.cli("pull")["brought"] == 0
    apply_changes(weights, "services")
    # What apply changed was the service alone; the file stays as pull left it, vouched for.
    listed = weights.cli("ls")
    assert {one["state"] for one in listed["files"][0]["on"].values()} == {"verified"}
    assert apply_changes(weights, "services") == 0


def test_a_host_that_is_killed_midway_stops_no_other_and_resumes_later(weights: Weights) -> None:
    first, middle, *_ = weights.names
    for name in weights.names:
        weights.rack.slow(name, rate_kbit=160_000)
    killed: list[int] = []

    def on_news(news: News) -> None:
        if isinstance(news, Moved) and news.host == middle and news.there > SIZE // 3 and not killed:
            killed.append(news.there)
            weights.run(middle, KILL)

    try:
        result = weights.pull(on_news)
    finally:
        for name in weights.names:
            weights.rack.mend(name)
    assert killed
    assert {name: result.status(name) for name in weights.names} == {
        name: "failed" if name == middle else "ok" for name in weights.names
    }
    weights.right(first, *weights.names[2:])
    kept = int(weights.run(middle, f"stat -c %s {FOLDER}/.labctl-get.*[0-9a-f]"))
    assert kept >= SIZE // 4
    again = weights.cli("pull")
    assert again["brought"] == 1
    assert sum(host["sent_bytes"] for host in again["hosts"]) <= SIZE - kept + 2 * MIB
    weights.right()


def test_ctrl_c_leaves_resumable_parts_and_nothing_running(weights: Weights) -> None:
    for name in weights.names:
        weights.rack.slow(name, rate_kbit=160_000)

    def on_news(news: News) -> None:
        if isinstance(news, Moved) and news.host == weights.names[-1] and news.there > SIZE // 4:
            raise KeyboardInterrupt

    try:
        result = weights.pull(on_news)
    finally:
        for name in weights.names:
            weights.rack.mend(name)
    assert result.interrupted
    for name in weights.names[1:]:
        assert wait_until(lambda name=name: weights.run(name, RUNS) == "0", within=10)
        assert int(weights.run(name, f"stat -c %s {FOLDER}/.labctl-get.*[0-9a-f]")) > 0
    weights.cli("pull")
    weights.right()


def test_a_flipped_byte_is_named_by_host_file_and_part_and_mended_by_pull(weights: Weights) -> None:
    weights.cli("pull")
    assert {one["verdict"] for one in weights.cli("verify")["checked"]} == {"ok"}
    rotten = weights.names[2]
    with (weights.rack.root(rotten) / PATH.lstrip("/")).open("r+b") as stream:
        stream.seek(5 * MIB + 17)
        stream.write(bytes([weights.content[5 * MIB + 17] ^ 1]))
    said = weights.cli("verify", code=1)
    wrong = [one for one in said["checked"] if one["verdict"] != "ok"]
    assert [(one["host"], one["path"], one["wrong_parts"]) for one in wrong] == [(rotten, PATH, [2])]
    assert f"{PATH} is wrong in part 2 (bytes 4194304 to 6291455)" in wrong[0]["reason"]
    weights.cli("pull")
    weights.right()


def test_gc_removes_what_labctl_brought_and_no_model_refers_to_and_nothing_else(weights: Weights) -> None:
    weights.cli("pull")
    one, two, *_ = weights.names
    weights.run(one, f"echo mine >{FOLDER}/notes.txt")
    weights.declare()
    looked = weights.cli("gc", "--dry-run")
    assert {path for host in looked["hosts"].values() for path in host["removed"]} == {PATH}
    weights.right(two)
    done = weights.cli("gc", "--yes")
    assert set(done["hosts"]) == set(weights.names)
    for name in weights.names:
        assert weights.run(name, f"ls {PATH} 2>/dev/null") == ""
    assert weights.run(one, f"cat {FOLDER}/notes.txt") == "mine"
    assert weights.run(two, "ls -A /srv/models /var/lib/labctl/verified").split() == [
        "/srv/models:",
        "/var/lib/labctl/verified:",
    ]


def test_gc_leaves_what_a_process_holds_open(weights: Weights) -> None:
    weights.cli("pull", "--host", weights.names[0])
    name = weights.names[0]
    weights.declare()
    weights.run(name, f"systemd-run --quiet --unit holder -p StandardInput=file:{PATH} sleep 60")
    done = weights.cli("gc", "--yes")
    assert done["hosts"][name] == {"removed": {}, "kept": {PATH: "a process has it open"}}
    weights.run(name, "systemctl stop holder")
    assert list(weights.cli("gc", "--yes")["hosts"][name]["removed"]) == [PATH]
