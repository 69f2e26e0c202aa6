"""Verifiers of passwords: by the example of the standard, and the same for the same password."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from labctl.domain import pgvector
from labctl.render.scram import ITERATIONS, keys, verifier


def test_the_keys_are_those_of_the_standard_s_example() -> None:
    # RFC 7677, section 3: what client and server say to each other for user "user" and password "pencil".
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    said = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}".encode()
    stored, server = keys(b"pencil", base64.b64decode(salt), 4096)
    signature = base64.b64encode(hmac.digest(server, said, "sha256"))
    assert signature == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, said, "sha256"), strict=True))
    assert hashlib.sha256(client).digest() == stored


def test_a_verifier_has_postgresql_s_form_and_depends_on_password_host_and_role() -> None:
    one = verifier("pencil", host="rig", role="rag")
    method, salted, hashed = one.split("$")
    assert (method, salted.split(":")[0]) == ("SCRAM-SHA-256", str(ITERATIONS))
    assert [len(base64.b64decode(part)) for part in (salted.split(":")[1], *hashed.split(":"))] == [
        16,
        32,
        32,
    ]
    assert one == verifier("pencil", host="rig", role="rag")
    others = [verifier("pencil", host="rig", role="x"), verifier("pencil", host="x", role="rag")]
    assert len({one, *others, verifier("pencils", host="rig", role="rag")}) == 4
    assert "pencil" not in one


@pytest.mark.parametrize("password", ["", "paßwort", "two\nlines"])
def test_a_password_that_would_need_normalising_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="must be printable ASCII"):
        verifier(password, host="rig", role="rag")


@pytest.mark.parametrize(
    ("distribution", "release", "major"),
    [("debian", "13", 17), ("ubuntu", "24.04", 16), ("ubuntu", "26.04", 18)],
)
def test_a_release_says_which_postgresql_it_has(distribution: str, release: str, major: int) -> None:
    assert pgvector.major(distribution, release) == major


@pytest.mark.parametrize(("distribution", "release"), [("debian", "12"), ("ubuntu", "22.04"), ("", "")])
def test_a_release_without_pgvector_is_named_with_those_that_have_it(distribution: str, release: str) -> None:
    with pytest.raises(ValueError, match=f"{release} has no package of pgvector; those that do: Debian 13"):
        pgvector.major(distribution, release)
