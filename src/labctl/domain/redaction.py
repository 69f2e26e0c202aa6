"""Take secrets out of text that shall leave the rack: those that are known, and whatever looks like one.

Three rules, each for what the one before cannot see:

1. A known secret goes wherever it stands and however it is written: as it is, escaped as in JSON, HTML or a
   unit's name, in percent signs, in hex, and in base64 at any place of a longer text.
2. What has the form of a secret goes as well: private keys, bearers and cookies, values of names and flags
   such as ``api_key`` or ``--token``, passwords in addresses, keys that known services hand out.
3. A text in which a known secret still shows once its white space is gone (a wrapped base64, say) is not fit
   to leave at all: ``leaks`` says so.

In doubt something harmless goes too. What stands for a secret says which, so that two places can be compared.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

SHORTEST = 4
"""A secret of fewer characters cannot be told from other text."""

_SECRET_WORDS = (
    r"(?:api[_-]?keys?|access[_-]?key|private[_-]?key|master[_-]?key|auth[_-]?key|secrets?|tokens?"
)
_SECRET_WORDS += r"|passw(?:or)?ds?|passwd|pw|passphrase|credentials?|cookie|authorization|bearer|pin)"
_JOINED_WORDS = r"(?:passw(?:or)?ds?|passwd|secrets?|token|api[_-]?keys?|sshpass|[_-]pwd)"
"""Words that mean a secret also at the end of another one: ``PGPASSWORD``, ``accessToken``."""

_NAME = re.compile(rf"(?i)(?:^|[_.\-\s]){_SECRET_WORDS}$|{_JOINED_WORDS}$|^key$")
_HARMLESS_NAME = re.compile(r"(?i)(?:max|min|num|total|prompt|completion|n)[_-]tokens?$|^tokens$")
_NO_SECRET = re.compile(r"(?i)\[redacted\b.*|[\d.]+|true|false|null|none|\**|<.*>|\"\"|''", re.S)
_LISTS_OF_WORDS = frozenset({"argv", "extra_args", "off_argv", "cmdline", "command"})
_ENVIRONMENTS = frozenset({"environment", "env"})
_MIDDLE = 8  # characters of base64 that no other text has by chance


def named_like_a_secret(name: str) -> bool:
    """Return whether a field, variable or flag of that name holds a secret."""
    bare = name.strip("-").strip()
    return bool(_NAME.search(bare)) and not _HARMLESS_NAME.search(bare)


@dataclass(frozen=True, slots=True)
class Redactor:
    """What is known to be secret: the forms of each secret, the longest first, and what it is called."""

    forms: tuple[tuple[str, str], ...] = ()

    def text(self, text: str) -> tuple[str, Counter[str]]:
        """Return a text without secrets, and how often each was in it."""
        counts: Counter[str] = Counter()
        for form, name in self.forms:
            if form in text:
                counts[name] += text.count(form)
                text = text.replace(form, f"[redacted {name}]")
        for name, pattern in _PATTERNS:
            text = pattern.sub(partial(_replaced, name, counts), text)
        return text, counts

    def document(self, value: Any) -> tuple[Any, Counter[str]]:
        """Return what JSON can hold without secrets, by its names too, and how often each was in it."""
        counts: Counter[str] = Counter()
        return self._value(value, "", counts), +counts

    def _value(self, value: Any, name: str, counts: Counter[str]) -> Any:
        if isinstance(value, Mapping):
            return {
                self._words(str(key), counts): self._field(str(key), each, name, counts)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            if name in _LISTS_OF_WORDS:
                return [self._words(each, counts) for each in _words_shown(value, counts)]
            return [self._value(each, name, counts) for each in value]
        return self._words(value, counts) if isinstance(value, str) else value

    def _field(self, key: str, value: Any, inside: str, counts: Counter[str]) -> Any:
        secret = inside in _ENVIRONMENTS or named_like_a_secret(key)
        if secret and isinstance(value, list | tuple):
            return [self._field(key, each, inside, counts) for each in value]
        if secret and isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            counts[f"value of {key}"] += 1
            return "[redacted value]"
        return self._value(value, key, counts)

    def _words(self, text: str, counts: Counter[str]) -> str:
        text, found = self.text(text)
        counts.update(found)
        return text

    def leaks(self, text: str) -> str:
        """Return which known secret a text still shows once its white space is gone; empty: none."""
        dense = "".join(text.split())
        return next((name for form, name in self.forms if "".join(form.split()) in dense), "")


def redactor(secrets: Mapping[str, str]) -> Redactor:
    """Return what takes these out; ``secrets`` maps each value to what it is called.

    Values shorter than ``SHORTEST`` are left out: whoever has some must not trust the result.
    """
    forms: dict[str, str] = {}
    for value, name in secrets.items():
        for each in {value, *_inside(value)}:
            for form in _forms(each):
                forms.setdefault(form, name)
    return Redactor(tuple(sorted(forms.items(), key=lambda one: (-len(one[0]), one[0]))))


def _inside(value: str) -> Iterator[str]:
    """Yield what is secret in an address by itself: its password, and the end of its path."""
    try:
        parts = urlsplit(value)
        password = parts.password
    except ValueError:
        return
    if not parts.scheme or not parts.netloc:
        return
    if password:
        yield from (password, unquote(password))
    last = parts.path.rstrip("/").rpartition("/")[2]
    if len(last) >= _MIDDLE:
        yield from (last, unquote(last))


def _forms(value: str) -> Iterator[str]:
    """Yield every way in which a secret may be written."""
    if len(value) < SHORTEST:
        return
    raw = value.encode("utf-8", "surrogateescape")
    quoted = {quote(value, safe="", errors="replace"), quote(value, errors="replace")}
    quoted.add(quote_plus(value, errors="replace"))
    yield value
    yield from quoted
    yield from (re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), each) for each in quoted)
    plain = json.dumps(value)[1:-1]
    yield from (plain, plain.replace("/", "\\/"), json.dumps(value, ensure_ascii=False)[1:-1])
    twice = json.dumps(plain)[1:-1]  # JSON as a string of JSON
    yield from (twice, repr(value)[1:-1], repr(raw)[2:-1], quote(quote(value, safe=""), safe=""))
    yield from (html.escape(value), html.escape(value).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"))
    yield from (value.replace("'", other) for other in ("'\\''", "'\"'\"'"))  # as shells quote it
    yield "".join(
        sign if sign.isalnum() or sign in "_." else "".join(f"\\x{byte:02x}" for byte in sign.encode())
        for sign in value
    )
    yield from (raw.hex(), raw.hex().upper())
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterator[str]:
    """Yield what base64 makes of a secret wherever it begins in a text, without what its ends touch."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw)
        # The first signs carry bits of what stands before, the last ones of what comes after.
        begin = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        middle = whole[begin:end].decode("ascii")
        if len(middle) >= min(_MIDDLE, len(raw)):
            yield from (middle, middle.translate(str.maketrans("+/", "-_")))


def _words_shown(words: Iterable[Any], counts: Counter[str]) -> Iterator[str]:
    """Yield a command line with its program and flags, and without whatever else it is told."""
    for index, word in enumerate(map(str, words)):
        flag, equals, rest = word.partition("=")
        if index == 0 or (word.startswith("-") and not rest):
            yield word
            continue
        counts["argument"] += 1
        yield f"{flag}{equals}[redacted argument]" if word.startswith("-") else "[redacted argument]"


def arguments(words: Iterable[str]) -> Iterator[str]:
    """Yield what a command line gives to flags that are named like secrets, to be taken out elsewhere too."""
    wanted = False
    for word in words:
        flag, equals, rest = word.partition("=")
        if wanted and not word.startswith("-"):
            yield word
        wanted = word.startswith("-") and not equals and named_like_a_secret(flag)
        if equals and rest and named_like_a_secret(flag):
            yield rest


def _replaced(name: str, counts: Counter[str], found: re.Match[str]) -> str:
    """Return what stands for a match, and count it; a match that is no secret stays."""
    groups = found.groupdict()
    value = groups.get("value")
    if value is not None and _NO_SECRET.fullmatch(value):
        return found[0]
    if _HARMLESS_NAME.search(groups.get("name") or ""):
        return found[0]
    counts[name] += 1
    return f"{groups.get('keep') or ''}[redacted {name}]{groups.get('after') or ''}"


_QUOTE = r"\\{0,3}[\"']"
"""A quotation mark, also as it is written inside of another text that is quoted."""

_VALUE = (
    r"b?(?P<value>\\{1,3}\"[^\"\n]{1,4096}\"|\\{1,3}'[^'\n]{1,4096}'"
    r"|\"[^\"\n]{1,4096}\"|'[^'\n]{1,4096}'|[^\s\"',;&]{1,4096})"
)
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[^-]{0,65536}(?:-----END [A-Z0-9 ]{0,40}-----)?"
        ),
    ),
    (
        "header",
        re.compile(
            r"(?i)(?P<keep>\b(?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?"
            r"(?:(?:bearer|basic|token)\s{1,4})?)(?P<value>[^\s\"',;]{1,4096})"
        ),
    ),
    ("cookie", re.compile(r"(?i)(?P<keep>\bcookie[\"']?\s{0,4}[:=]\s{0,4})(?P<value>[^\r\n]{1,4096})")),
    ("bearer", re.compile(r"(?i)(?P<keep>\b(?:bearer|basic)\s{1,4})(?P<value>[A-Za-z0-9._~+/=-]{8,4096})")),
    (
        "argument",
        re.compile(
            rf"(?i)(?P<keep>(?<![\w-])--?(?P<name>(?:[a-z0-9]{{1,20}}[-_]){{0,4}}{_SECRET_WORDS})(?:=|\s{{1,4}}))"
            rf"(?!-){_VALUE}"
        ),
    ),
    (
        "argument",
        re.compile(
            r"(?P<keep>(?<![\w-])(?:-u|--user|--proxy-user)(?:=|\s{1,4})[\"']?[^\s:\"']{1,200}:)"
            r"(?P<value>[^\s\"']{1,4096})"
        ),
    ),
    (
        "assignment",
        re.compile(
            rf"(?i)(?P<keep>(?<![a-z0-9])(?P<name>(?:[a-z0-9]{{1,40}}[_.-]){{0,6}}"
            rf"(?:[a-z0-9]{{0,40}}{_JOINED_WORDS}|{_SECRET_WORDS}))"
            rf"(?:{_QUOTE})?\s{{0,4}}(?:=>|[:=])\s{{0,4}}){_VALUE}"
        ),
    ),
    (
        "address",
        re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{1,20}://)(?P<value>[^\s/@\"'<>]{1,512})(?P<after>@)"),
    ),
    (
        "webhook",
        re.compile(
            r"(?P<keep>\bhttps?://(?:ntfy\.sh|hc-ping\.com|hooks\.slack\.com/services|"
            r"(?:\w{1,10}\.)?discord(?:app)?\.com/api/webhooks)/)(?P<value>[^\s\"'<>]{1,512})"
        ),
    ),
    (
        "key",
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
            r"|xox[abprs]-[A-Za-z0-9-]{10,}|tskey-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16}|AIza[\w-]{35}"
            r"|nvapi-[\w-]{20,}|tk_[a-z0-9]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,})"
        ),
    ),
)
