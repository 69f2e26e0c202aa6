"""What hosts print when they fail is recognised by their own words, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.failures import of_output


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (apt-get)\n"
            "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)",
            "apt-locked",
        ),
        (
            "E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)",
            "apt-locked",
        ),
        ("cat: write error: No space left on device", "disk-full"),
        ("tar: ./x: Cannot write: No space left on device", "disk-full"),
        ("sudo: a password is required", "no-sudo"),
        ("sudo: a terminal is required to read the password; either use the -S option", "no-sudo"),
        ("admin is not in the sudoers file.", "no-sudo"),
        ("sh: 1: sudo: not found", "no-sudo"),
    ],
)
def test_known_words_get_their_code_and_a_hint(text: str, code: str) -> None:
    failure = of_output(f"something before\n{text}\nsomething after")
    assert failure is not None
    assert failure.code == code
    assert failure.hint


def test_the_holder_of_the_apt_lock_is_quoted() -> None:
    failure = of_output("E: Could not get lock /var/lib/dpkg/lock. It is held by process 4711 (apt-get)")
    assert failure is not None
    assert "/var/lib/dpkg/lock" in failure.reason
    assert "process 4711 (apt-get)" in failure.reason


@pytest.mark.parametrize(
    "text", ["", "E: Unable to locate package foo", "Permission denied", "pseudo: not found"]
)
def test_other_words_are_not_guessed_at(text: str) -> None:
    assert of_output(text) is None


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    of_output(text)
