"""The strict reader of known_hosts: a line is understood completely, or it stops labctl with its number."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.problem import LabctlError
from labctl.inventory.known_hosts import KnownHost, fingerprint, load, lookup, parse, render


def ed25519(seed: int = 1) -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-ed25519", bytes([seed]) * 32))
    return base64.b64encode(blob).decode()


def _openssh(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[str, str]:
    keytype, _, key_b64 = (
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().partition(" ")
    )
    return keytype, key_b64


ED = ("ssh-ed25519", ed25519())
EC = _openssh(ec.generate_private_key(ec.SECP256R1()))
RSA = _openssh(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def off_the_curve() -> str:
    blob = bytearray(base64.b64decode(EC[1]))
    blob[-1] ^= 1
    return base64.b64encode(blob).decode()


@pytest.mark.parametrize(("keytype", "key"), [ED, EC, RSA])
@pytest.mark.parametrize(
    "names", ["10.66.0.11", "rig.lan,10.66.0.11", "[10.66.0.11]:2222", "2001:db8::1", "fe80::1%eth0"]
)
def test_what_openssh_writes_is_read(names: str, keytype: str, key: str) -> None:
    (entry,) = parse(f"# pinned today\n\n{names} {keytype} {key} a comment\n", "known_hosts")
    assert entry == KnownHost(tuple(names.split(",")), keytype, key, 3)


REFUSED = {
    "a hashed name": f"|1|aGFzaA==|c2FsdA== ssh-ed25519 {ed25519()}",
    "a pattern": f"10.66.0.* ssh-ed25519 {ed25519()}",
    "a negation": f"!rig ssh-ed25519 {ed25519()}",
    "a certificate authority": f"@cert-authority rig ssh-ed25519 {ed25519()}",
    "a revoked key": f"@revoked rig ssh-ed25519 {ed25519()}",
    "a name in capitals": f"Rig ssh-ed25519 {ed25519()}",
    "an empty name": f"rig,,nas ssh-ed25519 {ed25519()}",
    "a port beyond all ports": f"[rig]:70000 ssh-ed25519 {ed25519()}",
    "a name alone": "rig",
    "no key": "rig ssh-ed25519",
    "two blanks": f"rig  ssh-ed25519 {ed25519()}",
    "an unknown type": f"rig ssh-dss {ed25519()}",
    "a broken base64": f"rig ssh-ed25519 {ed25519()[:-3]}",
    "characters outside base64": f"rig ssh-ed25519 {ed25519()[:-1]}!",
    "another type inside": f"rig ssh-ed25519 {EC[1]}",
    "a key that is cut": "rig ssh-ed25519 " + base64.b64encode(base64.b64decode(ed25519())[:-4]).decode(),
    "a key that is too long": "rig ssh-ed25519 "
    + base64.b64encode(base64.b64decode(ed25519()) + b"\0\0\0\1x").decode(),
    "a key of the wrong length": "rig ssh-ed25519 "
    + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\4abcd").decode(),
    "a point that is not on the curve": f"rig {EC[0]} {off_the_curve()}",
    "a control character": f"rig\x0bnas ssh-ed25519 {ed25519()}",
    "a key hidden in a comment": f"# fine\rrig ssh-ed25519 {ed25519()}",
    "a letter beyond ASCII": f"käse ssh-ed25519 {ed25519()}",
    "two entries glued together": f"rig ssh-ed25519 {ed25519()}nas ssh-ed25519 {ed25519(2)}",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_line_stops_with_its_number(line: str) -> None:
    text = f"# first\nhub ssh-ed25519 {ed25519(9)}\n{line}\n"
    with pytest.raises(LabctlError) as caught:
        parse(text, "inventory/known_hosts")
    assert [(p.file, p.line) for p in caught.value.problems] == [("inventory/known_hosts", 3)]
    assert caught.value.code == 2


def test_every_bad_line_is_told() -> None:
    with pytest.raises(LabctlError) as caught:
        parse("a\nb\n\nc\n", "k")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 4]


def test_two_keys_of_one_type_for_one_name_are_refused() -> None:
    text = f"rig,10.0.0.1 ssh-ed25519 {ed25519(1)}\nnas,10.0.0.1 ssh-ed25519 {ed25519(2)}\n"
    with pytest.raises(LabctlError, match=r"10\.0\.0\.1 has another ssh-ed25519 key on line 1"):
        parse(text, "k")


def test_one_key_twice_and_keys_of_two_types_are_fine() -> None:
    text = f"rig ssh-ed25519 {ED[1]}\nrig ssh-ed25519 {ED[1]}\nrig {EC[0]} {EC[1]}\n"
    assert [entry.keytype for entry in lookup(parse(text, "k"), "rig")] == [
        "ssh-ed25519",
        "ssh-ed25519",
        EC[0],
    ]


def test_a_host_on_another_port_is_another_host() -> None:
    entries = parse(f"[rig]:2222 ssh-ed25519 {ed25519()}\n", "k")
    assert len(lookup(entries, "rig", 2222)) == 1
    assert lookup(entries, "rig") == ()


def test_what_is_rendered_is_read_back() -> None:
    entries = (KnownHost(("rig", "10.0.0.1"), *ED, line=1), KnownHost(("[nas]:2222",), *RSA, line=2))
    assert parse(render(entries), "k") == entries


def test_the_fingerprint_is_openssh_s() -> None:
    key = paramiko.PKey.from_type_string(ED[0], base64.b64decode(ED[1]))
    assert fingerprint(ED[1]) == key.fingerprint


def test_a_missing_file_holds_no_keys_and_an_unreadable_one_stops(tmp_path: Path) -> None:
    assert load(tmp_path / "known_hosts") == ()
    with pytest.raises(LabctlError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "known_hosts").write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(LabctlError) as caught:
        load(tmp_path / "known_hosts")
    assert caught.value.problems[0].line == 2


LINES = st.lists(
    st.one_of(
        st.text(max_size=40).filter(lambda text: "\n" not in text),
        st.builds(
            lambda name, key, cut, glue: f"{name}{glue}{key[0]}{glue}{key[1][:cut]}",
            st.sampled_from(
                ["rig", "10.0.0.1", "[rig]:2222", "a,b", "*", "@revoked rig", "RIG", " x", "#\rrig"]
            ),
            st.sampled_from([ED, EC, RSA, (EC[0], off_the_curve())]),
            st.sampled_from([None, None, None, -1, -4, 40]),
            st.sampled_from([" ", " ", " ", "\t", "  "]),
        ),
    ),
    max_size=4,
)


@settings(max_examples=500, deadline=None)
@given(LINES)
def test_whatever_is_accepted_is_read_by_paramiko_in_the_same_way(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        entries = parse(text, "k")
    except LabctlError as error:
        assert all(problem.line for problem in error.problems)
        return
    keys = paramiko.HostKeys()
    for line in io.StringIO(text, newline=None):
        if line.strip() and not line.strip().startswith("#"):
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line.strip())
            assert entry is not None
            keys._entries.append(entry)
    for entry in entries:
        for name in entry.names:
            assert base64.b64encode(keys.lookup(name)[entry.keytype].asbytes()).decode() == entry.key_b64
