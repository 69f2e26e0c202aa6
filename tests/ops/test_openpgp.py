"""Fingerprints of keys, and every file that must not pass for one."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.ops.openpgp import fingerprint, normalized

CASE = json.loads((Path(__file__).parent / "cases/apt/source_new.json").read_text())["args"]
KEY: str = CASE["key"]
FINGERPRINT: str = CASE["fingerprint"]
DATA = base64.b64decode("".join(KEY.splitlines()[2:-2]))


def _armored(data: bytes, header: str = "") -> str:
    body = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n{header}\n{body}-----END PGP PUBLIC KEY BLOCK-----\n"


def test_the_fingerprint_is_the_one_that_gpg_tells() -> None:
    assert fingerprint(KEY) == FINGERPRINT


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_gpg_agrees(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    argv = ["gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys"]
    shown = subprocess.run(argv, input=KEY, capture_output=True, text=True, check=True).stdout
    assert f"fpr:::::::::{fingerprint(KEY)}:" in shown


@pytest.mark.parametrize(
    "text",
    [
        _armored(DATA),
        _armored(DATA, "Comment: of the vendor\nVersion: 1\n"),
        KEY.replace("\n", "\r\n"),
        f"words before\n{KEY}words after\n",
        "\n".join(line for line in KEY.splitlines() if line and not line.startswith("=")),
    ],
)
def test_armor_is_read_however_it_is_dressed(text: str) -> None:
    assert fingerprint(text) == FINGERPRINT


def _old_packet(tag: int, body: bytes) -> bytes:
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 armored public key blocks"),
        (KEY + KEY, "2 armored public key blocks"),
        (KEY.replace("PUBLIC KEY", "PRIVATE KEY"), "0 armored public key blocks"),
        (KEY + "-----BEGIN PGP SIGNATURE-----\n", "expected exactly one"),
        (_armored(DATA + DATA), "2 primary keys"),
        (_armored(_old_packet(13, b"name")), "0 primary keys"),
        (_armored(DATA + _old_packet(5, b"\x04secret")), "a secret key"),
        (_armored(DATA[:-5]), "in the middle of a packet"),
        (_armored(b"hello"), "no OpenPGP data"),
        (_armored(_old_packet(6, b"\x03old")), "version is 3"),
        (_armored(_old_packet(6, b"")), "version is 0"),
        (KEY.replace(KEY.splitlines()[2], "!" + KEY.splitlines()[2][1:]), "armor is damaged"),
    ],
)
def test_what_is_no_single_public_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fingerprint(text)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_fingerprint_or_a_reason(data: bytes) -> None:
    try:
        assert len(fingerprint(_armored(data))) in (40, 64)
    except ValueError as error:
        assert str(error)


@given(st.integers(0, len(DATA) - 1), st.integers(0, 7))
def test_one_flipped_bit_in_the_key_changes_its_fingerprint(at: int, bit: int) -> None:
    body_ends = 3 + DATA[1] if DATA[0] & 3 == 0 else 0
    flipped = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
    try:
        same = fingerprint(_armored(flipped)) == FINGERPRINT
    except ValueError:
        return
    # What lies behind the key packet (user id, signatures) is for apt to judge.
    assert not same or at >= body_ends - 1


@pytest.mark.parametrize("short", ["", "DEADBEEF", FINGERPRINT[-16:], FINGERPRINT + "0", "Z" * 40])
def test_only_full_fingerprints_count(short: str) -> None:
    with pytest.raises(ValueError, match="no full fingerprint"):
        normalized(short)


def test_a_fingerprint_may_be_written_as_people_write_it() -> None:
    spaced = " ".join(FINGERPRINT[at : at + 4] for at in range(0, 40, 4)).lower()
    assert normalized(spaced) == FINGERPRINT
