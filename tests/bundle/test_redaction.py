"""Secrets go out of text in whatever form they stand in, and what is no secret stays."""

from __future__ import annotations

import base64
import json
import shlex
from urllib.parse import quote, quote_plus

import markupsafe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.redaction import Redactor, arguments, named_like_a_secret, redactor

SECRET = "Zq3+/x~A:9@w!Kq,b=*7"
SECRETS = st.text(
    st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~+/=:@!*,-\"'&%\\ ß"),
    min_size=8,
    max_size=60,
).filter(lambda value: value.strip() == value and len(set(value)) > 3)


def forms(value: str) -> dict[str, str]:
    """Return a secret as others write it, each form made by its own library."""
    raw = value.encode()
    return {
        "plain": value,
        "json": json.dumps(value)[1:-1],
        "url": quote(value, safe=""),
        "path": quote(value),
        "form": quote_plus(value),
        "base64": base64.b64encode(raw).decode(),
        "urlsafe": base64.urlsafe_b64encode(raw).decode(),
        "basic": base64.b64encode(b"user:" + raw).decode(),
        "amid": base64.b64encode(b"x" + raw + b"tail of it").decode(),
        "hex": raw.hex(),
        "json in json": json.dumps(json.dumps(value)[1:-1])[1:-1],
        "python": repr(value)[1:-1],
        "bytes": repr(raw)[2:-1],
        "page": str(markupsafe.escape(value)),
        "shell": shlex.quote(f"{value} ")[1:-2],
        "url in url": quote(quote(value, safe=""), safe=""),
    }


@settings(max_examples=60)
@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_goes_in_every_form(value: str, before: str, after: str) -> None:
    made = redactor({value: "a key"})
    for name, form in forms(value).items():
        clean, counts = made.text(f"{before} {form} {after}")
        assert form not in clean, name
        assert not made.leaks(clean) or made.leaks(f"{before}{after}"), name
        assert counts, name


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Authorization: Bearer abc.DEF-123456", "abc.DEF-123456"),
        ("curl -H 'authorization: Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
        ('{"api_key": "qwertyuiop"}', "qwertyuiop"),
        ("llama-server --api-key qwertyuiop --port 80", "qwertyuiop"),
        ("llama-server --api-key=qwertyuiop", "qwertyuiop"),
        ("HF_TOKEN=qwertyuiop", "qwertyuiop"),
        ("PGPASSWORD=qwertyuiop", "qwertyuiop"),
        ("MYSQL_PWD=qwertyuiop", "qwertyuiop"),
        ('{"accessToken":"qwertyuiop"}', "qwertyuiop"),
        (r'body="{\"api_key\": \"qwertyuiop\"}"', "qwertyuiop"),
        ("headers {b'x-api-key': b'qwertyuiop'}", "qwertyuiop"),
        ("password => qwertyuiop", "qwertyuiop"),
        ("Started sh -c pw=qwertyuiop", "qwertyuiop"),
        ("Cookie: theme=dark; session=qwertyuiop", "qwertyuiop"),
        ("curl -u ann:qwertyuiop http://box", "qwertyuiop"),
        ("password: '12345678'", "12345678"),
        ("postgresql://labctl:hunter2@db/x", "hunter2"),
        ("GET /x?token=qwertyuiop&a=1", "qwertyuiop"),
        ("key sk-abcdefghijklmnopqrst was used", "sk-abcdefghijklmnopqrst"),
        ("hf_abcdefghijklmnopqrst", "hf_abcdefghijklmnopqrst"),
        ("told https://ntfy.sh/my-topic-77", "my-topic-77"),
        ("https://discord.com/api/webhooks/12/abcDEF", "abcDEF"),
        ("x -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA\n-----END OPENSSH PRIVATE KEY-----", "b3Blbn"),
        ("-----BEGIN PRIVATE KEY-----\nMIIcut", "MIIcut"),
    ],
)
def test_what_looks_like_a_secret_goes_though_nobody_knows_it(text: str, gone: str) -> None:
    clean, counts = Redactor().text(text)
    assert gone not in clean
    assert "[redacted" in clean
    assert sum(counts.values()) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096 and 81230 tokens", '{"tokens": 81230.0}', "the key of host rig changed",
        "a hold by ann@laptop: a fine-tune", "http://10.0.0.1:8080/v1/models", "token: null",
        "labctl-chat.service loaded active running", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiI",
        "GPU-11111111-2222-3333-4444-555555555555", "user@example.org", "no secrets here",
        "user 1000:1000 --user=1000:1000", '{"completionTokens": 7, "total_tokens": 9}',
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == (text, {})


def test_a_document_loses_values_of_fields_named_like_secrets_and_words_of_command_lines() -> None:
    clean, _ = Redactor().document(
        {
            "api_key": {"file": "keys/serving"},
            "password": "hunter2",
            "api_keys": ["hunter2", 77],
            "pin": 1234,
            "argv": ["/bin/x", "--port=80", "-v", "hunter2", "--verbose"],
            "environment": {"PLAIN": "hunter2"},
            "tokens": 12.5,
            "deep": [{"access_token": "hunter2"}],
        }
    )
    assert "hunter2" not in json.dumps(clean)
    assert clean["api_key"] == {"file": "keys/serving"}
    assert clean["argv"] == [
        "/bin/x", "--port=[redacted argument]", "-v", "[redacted argument]", "--verbose"
    ]  # fmt: skip
    assert clean["tokens"] == 12.5
    assert clean["pin"] == "[redacted value]"


def test_an_address_hides_its_password_and_the_end_of_its_path_by_themselves() -> None:
    made = redactor({"https://user:p%40ss-word@host/api/hook/c4n4ry-id": "hook"})
    clean, _ = made.text("used p@ss-word, then c4n4ry-id")
    assert "p@ss" not in clean
    assert "c4n4ry" not in clean


def test_a_secret_that_shows_only_without_white_space_is_a_leak() -> None:
    wrapped = base64.b64encode((SECRET * 3).encode()).decode()
    text = "\n".join(wrapped[place : place + 8] for place in range(0, len(wrapped), 8))
    made = redactor({SECRET: "hosts.rig.key"})
    assert made.leaks(made.text(text)[0]) == "hosts.rig.key"
    assert made.leaks("nothing of it") == ""


def test_flags_of_command_lines_say_what_is_secret() -> None:
    words = ["x", "--api-key", "one", "--port", "80", "--auth-token=two", "--verbose"]
    assert list(arguments(words)) == ["one", "two"]
    assert named_like_a_secret("HF_TOKEN")
    assert not named_like_a_secret("max_tokens")
    assert not named_like_a_secret("monkey")
