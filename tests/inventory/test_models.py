"""The inventory's classes: values with several spellings become one, and what is built cannot change."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from labctl import content
from labctl.domain.gpus import Cap
from labctl.inventory import Gpu, Host, Rack, Ssh, WakeOnLan, fields, load_rack, profiles, watts
from labctl.inventory.fields import duration, duration_text

NORMAL = [
    (fields.Mac, "52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
    (fields.Mac, "52-54-00-ab-cd-ef", "52:54:00:ab:cd:ef"),
    (fields.Mac, "5254.00ab.cdef", "52:54:00:ab:cd:ef"),
    (fields.Address, "Rig.LAN", "rig.lan"),
    (fields.Address, "2001:DB8:0:0::1", "2001:db8::1"),
    (fields.Sha256, "AB" * 32, "ab" * 32),
    (fields.GpuUuid, "gpu-ABCDEF01-1111-2222-3333-444455556666", "GPU-abcdef01-1111-2222-3333-444455556666"),
    (fields.GpuRef, "slot0", "slot0"),
    (fields.GpuRef, "GPU-ABCDEF01-1111-2222-3333-444455556666", "GPU-abcdef01-1111-2222-3333-444455556666"),
    (fields.GpuRef, "3B:00.0", "0000:3b:00.0"),
    (fields.PciAddress, "0000:3B:00.0", "0000:3b:00.0"),
    (fields.PciAddress, "00000000:3B:00.0", "0000:3b:00.0"),
    (fields.PciAddress, "3b:00.0", "0000:3b:00.0"),
    (fields.PciAddress, "0000000F:01:00.0", "000f:01:00.0"),
    (fields.ClocksMhz, [210, 1500], (210, 1500)),
    (fields.TimeZone, "Europe/Berlin", "Europe/Berlin"),
    (fields.Source, "file:///srv/m.gguf", "file:///srv/m.gguf"),
    (fields.Duration, "90s", timedelta(seconds=90)),
    (fields.Duration, "15min", timedelta(minutes=15)),
    (fields.Duration, "1h 30m", timedelta(minutes=90)),
    (fields.Duration, timedelta(days=2), timedelta(days=2)),
]
REFUSED = [
    (fields.Mac, "52:54:00:ab:cd"),
    (fields.Mac, "ff:ff:ff:ff:ff:ff"),
    (fields.Mac, "00:00:00:00:00:00"),
    (fields.Mac, "52:54:00:ab:cd:eٱ"),
    (fields.Address, ""),
    (fields.Address, "10.0.0"),
    (fields.Address, "10.0.0.1/24"),
    (fields.Address, "-rig"),
    (fields.Address, "rig\n"),
    (fields.Address, "a" * 64),
    (fields.Address, "a." * 127 + "a"),
    (fields.Label, "rig.lan"),
    (fields.Label, "rig-"),
    (fields.Label, "a" * 64),
    (fields.Label, "@local"),
    (fields.Port, 0),
    (fields.Port, 65536),
    (fields.Port, "22"),
    (fields.Watts, 200.0),
    (fields.Watts, True),
    (fields.Watts, 0),
    (fields.Watts, -200),
    (fields.Watts, 1e9),
    (fields.Watts, 10**9),
    (fields.PciAddress, "3b:00"),
    (fields.PciAddress, "0000:3b:00.9"),
    (fields.PciAddress, "0000:3b:40.0"),
    (fields.PciAddress, "0000:3b:00.0\n"),
    (fields.GpuRef, "PCI:3b:00.0"),
    (fields.ClocksMhz, [1500, 210]),
    (fields.ClocksMhz, [210]),
    (fields.ClocksMhz, [0, 1500]),
    (fields.ClocksMhz, "210,1500"),
    (fields.Share, float("inf")),
    (fields.Share, 1.01),
    (fields.Share, float("nan")),
    (fields.Flag, 1),
    (fields.Text, "a\nb"),
    (fields.Text, b"a"),
    (fields.Source, "ftp://e.org/m"),
    (fields.Source, "file://m"),
    (fields.Source, "https:///m"),
    (fields.Source, "https://e.org"),
    (fields.Source, "/srv/m"),
    (fields.Source, "https://e.org/a b"),
    (fields.Source, "https://e.org/模.gguf"),
    (fields.ModelId, "a/../../etc"),
    (fields.ModelId, "a/./b"),
    (fields.ModelId, "a//b"),
    (fields.ModelId, "a b"),
    (fields.ModelId, "a\n"),
    (fields.TimeZone, "../../etc/passwd"),
    (fields.TimeZone, "Berlin"),
    (fields.RemotePath, "/srv/../etc"),
    (fields.Duration, 30),
    (fields.Duration, "30"),
    (fields.Duration, "-1h"),
    (fields.Duration, ""),
    (fields.Duration, "400d"),
    (fields.Duration, "0.5s"),
    (fields.Duration, timedelta(milliseconds=1500)),
    (fields.EnvName, "A=B"),
    (fields.UserName, "Root"),
    (fields.PackageName, "-y"),
    (fields.Interface, "eth0/../x"),
]


@pytest.mark.parametrize(("kind", "given", "wanted"), NORMAL)
def test_several_spellings_become_one(kind: Any, given: object, wanted: object) -> None:
    assert TypeAdapter(kind).validate_python(given) == wanted


@pytest.mark.parametrize(("kind", "given"), REFUSED)
def test_what_could_not_work_is_refused(kind: Any, given: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(given)


@settings(max_examples=300)
@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=366)))
def test_a_duration_is_read_back_as_it_was_written(value: timedelta) -> None:
    whole = timedelta(seconds=int(value.total_seconds()))
    assert duration(duration_text(whole)) == whole


def test_a_rack_survives_the_way_through_json() -> None:
    rack = load_rack(content.example_rack()).rack
    assert Rack.model_validate(rack.to_json()) == rack


def test_nothing_in_a_rack_can_be_changed_afterwards() -> None:
    host = Host(name="a", address="10.0.0.1", gpus=[Gpu(model="RTX 3090", slot="s")])
    with pytest.raises(ValidationError, match="frozen"):
        host.name = "b"  # type: ignore[misc]
    assert isinstance(host.gpus, tuple)


def test_lists_and_tuples_are_both_welcome() -> None:
    one, other = Host(name="a", address="x", roles=["gpu"]), Host(name="a", address="x", roles=("gpu",))
    assert one == other


def test_a_rack_finds_its_parts() -> None:
    own = Ssh(user="root", port=2222)
    rack = Rack(name="r", hosts=[Host(name="a", address="x"), Host(name="b", address="y", ssh=own)])
    assert rack.ssh_for(rack.host("a")) == Ssh()
    assert rack.ssh_for(rack.host("b")) == own
    for find in (rack.host, rack.model):
        with pytest.raises(KeyError, match="c"):
            find("c")


def test_the_example_is_the_rack_that_the_virtual_hosts_are_made_from() -> None:
    rack = load_rack(content.example_rack()).rack
    assert [host.name for host in rack.hosts] == ["rig", "strix", "mini", "spark1", "spark2", "nas", "hub"]
    assert [host.address for host in rack.hosts] == [f"10.66.0.{n}" for n in range(11, 18)]
    rig = rack.host("rig")
    assert (len(rig.gpus), len(rig.psus)) == (8, 2)
    assert all(host.vendor_image and host.unified_memory_gib for host in rack.hosts[3:5])
    sleeper = rack.host("mini")
    assert sleeper.idle.suspend
    assert isinstance(sleeper.wake, WakeOnLan)
    # The caps are there so that the whole box stays below what its circuit carries for hours.
    uncapped = rig.model_copy(update={"cap_w": None, "cap_reason": None})
    assert watts.rack_budget(rack).fits
    assert not watts.rack_budget(rack.model_copy(update={"hosts": (uncapped,)})).fits
    assert {profiles.cap_of(rig, gpu) for gpu in rig.gpus} == {Cap(200, "circuit")}
    # Nothing else hangs on that circuit.
    assert [host.name for host in rack.hosts if any(psu.circuit for psu in host.psus)] == ["rig"]
