"""The controller's line in authorized_keys."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from labctl.agent.access import authorized_keys_line
from labctl.domain.problem import LabctlError

_PRIVATE = ed25519.Ed25519PrivateKey.generate()


def public(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


GOOD = public(_PRIVATE)
B64 = GOOD.split()[1]
PREFIX = 'command="/usr/local/lib/labctl/agent.pyz --forced",restrict '


@pytest.mark.parametrize(
    "key",
    [
        _PRIVATE,
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 3072),
    ],
    ids=["ed25519", "nistp256", "nistp521", "rsa"],
)
def test_a_plain_key_is_limited_to_the_agent(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    assert authorized_keys_line(public(key) + " controller@hub\n") == f"{PREFIX}{public(key)} controller@hub"


def test_a_key_without_a_comment_is_enough() -> None:
    assert authorized_keys_line(GOOD) == PREFIX + GOOD


def blob(*parts: bytes) -> str:
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


_PEM = _PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


NOT_A_KEY = {
    "nothing": ("", "does not begin with a known type"),
    "a type alone": ("ssh-ed25519", "not a whole"),
    "a private key": (_PEM, "private key"),
    "two lines": (f"{GOOD}\n{GOOD}", "not one line"),
    "a carriage return": (f"{GOOD}\rssh-rsa AAAA", "not one line"),
    "a zero byte": (f"{GOOD}\x00", "not one line"),
    "an accent": (f"{GOOD} caf\u00e9", "not one line"),
    "a line separator": (f"{GOOD}\u2028{GOOD}", "not one line"),
    "a command": (f'command="/bin/sh" {GOOD}', "known type"),
    "an option": (f"no-pty {GOOD}", "known type"),
    "an option that gives back": (f"restrict,pty {GOOD}", "known type"),
    "an authority": (f"cert-authority {GOOD}", "known type"),
    "a certificate": (f"ssh-ed25519-cert-v01@openssh.com {B64}", "known type"),
    "an old type": (f"ssh-dss {B64}", "known type"),
    "capitals": (f"SSH-ED25519 {B64}", "known type"),
    "a remark": (f"# {GOOD}", "known type"),
    "no base64": ("ssh-ed25519 !!!!", "not valid base64"),
    "a cut key": (f"ssh-ed25519 {B64[:-4]}", "not a whole"),
    "a longer key": (f"ssh-ed25519 {B64}AAAA", "base64|not a whole"),
    "another type's key": (f"ssh-rsa {B64}", "not a whole ssh-rsa key"),
    "a short key": (f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 31)}", "wrong length"),
    "a part too many": (f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 32, b'more')}", "not a whole"),
    "an empty part": (f"ssh-ed25519 {blob(b'ssh-ed25519', b'')}", "not a whole"),
    "a weak RSA key": (public(rsa.generate_private_key(65537, 1024)), "fewer than 2048 bits"),
    "a quote in the comment": (f'{GOOD} x",command="/bin/sh', "unusual characters"),
    "a shell in the comment": (f"{GOOD} $(id)", "unusual characters"),
    "a long comment": (f"{GOOD} {'x' * 201}", "unusual characters"),
}


@pytest.mark.parametrize(("text", "reason"), NOT_A_KEY.values(), ids=NOT_A_KEY)
def test_anything_but_one_plain_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LabctlError, match=reason) as caught:
        authorized_keys_line(text)
    assert caught.value.problems[0].hint


def test_a_refusal_never_repeats_a_private_key() -> None:
    with pytest.raises(LabctlError) as caught:
        authorized_keys_line(_PEM)
    assert not [line for line in _PEM.splitlines()[1:-1] if line in str(caught.value)]


@given(st.one_of(st.text(max_size=80), st.text(max_size=40).map(lambda tail: GOOD + tail)))
def test_whatever_is_given_the_line_is_one_forced_restricted_key(text: str) -> None:
    try:
        line = authorized_keys_line(text)
    except LabctlError:
        return
    assert line.startswith(f"{PREFIX}ssh-ed25519 {B64}")
    assert line.isascii() and line.isprintable()
    assert line.count('"') == 2
