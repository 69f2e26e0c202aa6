"""Couriers: what they send, when a letter certainly did not arrive, and that no error holds an address."""

from __future__ import annotations

import email
import socket
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from labctl.adapters.couriers import DeadMan, Mail, Ntfy, Webhook, asking
from labctl.adapters.couriers.mail import Account
from labctl.domain.health.terms import Level
from labctl.ports.letters import Courier, CourierError, Letter
from post_office import Got, Mailbox, post_office, web

LETTER = Letter(
    "0a1b2c", "home: CRIT: größe", "CRIT: rig xid slot0 <@everyone> & <!here>\nOK: nas", Level.CRIT
)
SECRET = "s3cr3t-topic"


@pytest.fixture
def got() -> Iterator[Got]:
    with web() as found:
        yield found


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with post_office() as found:
        yield found


def mail(
    box: Mailbox, security: Literal["none", "starttls", "tls"] = "none", password: str | None = None
) -> Mail:
    account = Account("127.0.0.1", box.port, security, "labctl" if password else None, password)
    return Mail(account, "labctl@example.org", ("me@example.org", "you@example.org"))


def test_ntfy_gets_title_text_priority_and_the_id_as_json_at_its_root(got: Got) -> None:
    Ntfy(f"{got.address}/{SECRET}", "tk_1").send(LETTER)
    ((method, path, headers, _),) = got.requests
    assert (method, path, headers["authorization"]) == ("POST", "/", "Bearer tk_1")
    (document,) = got.documents
    assert document == {
        "topic": SECRET,
        "title": LETTER.title,
        "message": LETTER.text,
        "priority": 5,
        "tags": ["rotating_light"],
        "sequence_id": "0a1b2c",
    }


def test_ntfy_knows_a_letter_that_its_server_still_shows(got: Got) -> None:
    ntfy = Ntfy(f"{got.address}/below/{SECRET}", None)
    got.shown = b'{"event":"message","sequence_id":"other"}\nnot json\n[]\n'
    assert not ntfy.has("0a1b2c")
    got.shown += b'{"event":"message","sequence_id":"0a1b2c"}\n'
    assert ntfy.has("0a1b2c")
    assert got.requests[-1][1] == f"/below/{SECRET}/json?poll=1&since=12h"
    got.status = 403
    assert not ntfy.has("0a1b2c"), "where nobody can tell, it has not arrived"


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("plain", {"id": "0a1b2c", "level": "CRIT", "over": False, "again": False}),
        ("discord", {"allowed_mentions": {"parse": []}}),
        (
            "slack",
            {"text": "home: CRIT: größe\nCRIT: rig xid slot0 &lt;@everyone&gt; &amp; &lt;!here&gt;\nOK: nas"},
        ),
    ],
)
def test_a_webhook_gets_its_form_and_the_id_and_nobody_is_called_by_what_a_host_says(
    got: Got, form: Literal["plain", "discord", "slack"], wanted: dict[str, Any]
) -> None:
    Webhook(f"{got.address}/hook/{SECRET}?wait=true", form).send(LETTER)
    ((_, path, headers, _),) = got.requests
    assert (path, headers["idempotency-key"]) == (f"/hook/{SECRET}?wait=true", "0a1b2c")
    (document,) = got.documents
    assert {name: document[name] for name in wanted} == wanted


def test_a_letter_that_is_too_long_for_discord_is_cut(got: Got) -> None:
    Webhook(got.address, "discord").send(Letter("1", "t", "x" * 5000, Level.OK))
    assert len(got.documents[0]["content"]) == 2000


def test_the_ping_goes_to_the_address_and_to_fail_below_it(got: Got) -> None:
    DeadMan(f"{got.address}/uuid?create=1").alive(failed=False, text="home: OK")
    DeadMan(f"{got.address}/uuid").alive(failed=True, text="home: CRIT")
    assert [(path, body) for _, path, _, body in got.requests] == [
        ("/uuid?create=1", b"home: OK"),
        ("/uuid/fail", b"home: CRIT"),
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "asked elsewhere"),
        (401, "wants a token"),
        (404, "nothing behind"),
        (429, "too much"),
        (500, "did not take it"),
    ],
)
def test_an_answer_that_refuses_is_certain_and_a_redirect_is_not_followed(
    got: Got, status: int, words: str
) -> None:
    got.status = status
    with pytest.raises(CourierError, match=words) as refused:
        Ntfy(f"{got.address}/{SECRET}", "tk_1").send(LETTER)
    assert refused.value.certain and SECRET not in str(refused.value)
    assert len(got.requests) == 1


def test_silence_after_the_letter_was_sent_is_not_certain(got: Got) -> None:
    got.deaf = True
    with pytest.raises(CourierError, match="broke off") as unknown:
        Webhook(f"{got.address}/{SECRET}", "plain").send(LETTER)
    assert not unknown.value.certain and SECRET not in str(unknown.value)


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_server_that_is_not_there_is_certain_and_its_address_is_not_said(nobody: str) -> None:
    couriers: list[Courier] = [Ntfy(f"{nobody}/{SECRET}", None), Webhook(f"{nobody}/{SECRET}", "plain")]
    for courier in couriers:
        with pytest.raises(CourierError, match="cannot be reached") as refused:
            courier.send(LETTER)
        assert refused.value.certain and SECRET not in repr(refused.value)
        assert refused.value.__suppress_context__
        assert not courier.has("0a1b2c")


def test_whoever_takes_too_long_is_left_alone_and_nobody_knows() -> None:
    a, b = socket.socketpair()
    with a, b, pytest.raises(CourierError, match="no answer within") as unknown:
        asking.within(0.02, lambda: a.recv(1))
    assert not unknown.value.certain


def test_mail_is_handed_in_with_its_id_to_all(box: Mailbox) -> None:
    mail(box, password="p w&d").send(LETTER)
    (text,) = box.letters
    message = email.message_from_string(text)
    assert message["Message-ID"] == "<0a1b2c@labctl.invalid>"
    assert message["To"] == "me@example.org, you@example.org"
    assert message["Auto-Submitted"] == "auto-generated"
    assert b"rig xid slot0" in message.get_payload(decode=True)  # type: ignore[operator]
    assert [one for one in box.said if one.startswith("rcpt")] == [
        "rcpt TO:<me@example.org>",
        "rcpt TO:<you@example.org>",
    ]


@pytest.mark.parametrize(
    ("answers", "words", "certain"),
    [
        ({"AUTH": "535 no"}, "user and password", True),
        ({"MAIL": "550 no"}, "refuses an address", True),
        ({"RCPT": "550 no"}, "refuses an address", True),
        ({"DATA": "554 no"}, "does not take it", True),
        ({"END": "554 spam"}, "does not take it", True),
        ({"END": ""}, "cannot be reached", False),
        ({"greeting": "554 away"}, "does not take it", True),
    ],
)
def test_what_a_mail_server_says_decides_whether_it_is_certain(
    box: Mailbox, answers: dict[str, str], words: str, certain: bool
) -> None:
    box.answers = answers
    with pytest.raises(CourierError, match=words) as refused:
        mail(box, password="hunter2").send(LETTER)
    assert refused.value.certain is certain
    assert "hunter2" not in str(refused.value)


def test_a_server_that_cannot_keep_it_private_never_sees_the_password(box: Mailbox) -> None:
    with pytest.raises(CourierError, match="`security` asks for") as refused:
        mail(box, "starttls", "hunter2").send(LETTER)
    assert refused.value.certain
    assert not any(one.upper().startswith(("AUTH", "MAIL")) for one in box.said)
    assert not mail(box).has("0a1b2c")


def test_a_server_that_has_it_and_says_no_farewell_has_it(box: Mailbox) -> None:
    box.answers = {"QUIT": ""}
    mail(box).send(LETTER)
    assert len(box.letters) == 1
