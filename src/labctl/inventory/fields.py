"""The kinds of values that inventory fields hold: each refuses what could not work, in plain words.

Numbers are strict (``"200"`` or ``200.5`` W is a mistake, not 200), text is never coerced, and everything
that has several spellings is normalised once here: MACs to ``aa:bb:cc:dd:ee:ff``, hashes to lower case.
Units stand in the field's name (``cap_w``, ``memory_gib``); durations are the exception, they are written
``"15m"``.
"""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote
from zoneinfo import TZPATH

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
    r"(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII | re.IGNORECASE,
)
_MAC = re.compile(r"[0-9a-f]{12}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?", re.ASCII)
_GPU_UUID = re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62})", re.ASCII)
_MODEL_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/+-]{0,126}[A-Za-z0-9])?", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?", re.ASCII)
_INTERFACE = re.compile(r"[^\s/:]{1,15}", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CUDA = re.compile(r"\d{2}-\d", re.ASCII)
_ROCM = re.compile(r"\d{1,2}\.\d{1,2}", re.ASCII)
_FILE_PART = re.compile(r"[A-Za-z0-9_+.-]{1,200}", re.ASCII)
_HUB_REPO = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}", re.ASCII)
_HUB_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
# RFC 6761, 6762, 8375, ICANN's .internal, what many home routers say, and Tailscale, which encrypts.
_NEAR = (".internal", ".lan", ".local", ".localhost", ".home.arpa", ".ts.net")
_ELSE_BY_SLOT = "copy all of it, or tell the card by its `slot` instead"
_URL_SAFE = "%:/?#[]@!$&'()*+,;=~"
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,6})s)?", re.ASCII)


class MendableError(ValueError):
    """A value that could not work, with a hint of what would."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


def _label(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise ValueError("must be a host name label: a-z, 0-9 and '-' inside, at most 63 characters")
    return text


def is_address(text: str) -> bool:
    """Return whether a text is an IP address or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return not text.replace(".", "").isdigit() and _HOSTNAME.fullmatch(text) is not None
    return True


def is_near(host: str) -> bool:
    """Return whether an address can only be one of the network that the rack is in."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_NEAR)


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError("must be an IP address or a host name")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text.lower()


def _mac(text: str) -> str:
    digits = re.sub(r"[:.-]", "", text).lower()
    if not _MAC.fullmatch(digits):
        raise ValueError("must be a MAC address such as 52:54:00:12:34:56")
    if int(digits[:2], 16) & 1 or digits == "0" * 12:
        raise ValueError("must be the MAC address of one network card, not a multicast or empty one")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text.lower()):
        raise ValueError("must be a SHA-256 in hex: 64 digits of 0-9 and a-f")
    return text.lower()


def _fingerprint(text: str) -> str:
    normal = text.replace(" ", "").upper()
    if not _FINGERPRINT.fullmatch(normal):
        raise MendableError(
            "must be the fingerprint of an OpenPGP key: 40 hex digits", "`gpg --show-keys FILE` prints it"
        )
    return normal


def _gpu_uuid(text: str) -> str:
    prefix, _, rest = text.partition("-")
    normal = f"{prefix.upper()}-{rest.lower()}"
    if not _GPU_UUID.fullmatch(normal):
        raise MendableError(
            "must be a GPU UUID as `nvidia-smi -L` prints it: GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
            _ELSE_BY_SLOT,
        )
    return normal


def _pci(text: str) -> str:
    """Return ``0000:3b:00.0`` also for ``3b:00.0`` and for NVIDIA's ``00000000:3B:00.0``."""
    given = text.lower()
    full = given if given.count(":") == 2 else f"0000:{given}"
    if not _PCI.fullmatch(full):
        raise MendableError(
            "must be a PCI address as `lspci -D` prints it, such as 0000:3b:00.0", _ELSE_BY_SLOT
        )
    domain, rest = full.split(":", 1)
    return f"{int(domain, 16):04x}:{rest}"


def _clocks(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise MendableError("must be the lowest clock, then the highest", f"write ({pair[1]}, {pair[0]})")
    return pair


def _gpu_ref(text: str) -> str:
    if text.upper().startswith("GPU-"):
        return _gpu_uuid(text)
    if ":" in text:
        return _pci(text)
    if not _NAME.fullmatch(text):
        raise ValueError("must be a card's slot, such as slot0, its UUID or its PCI address")
    return text


def _source(text: str) -> str:
    scheme, found, rest = text.partition("://")
    server, _, path = rest.partition("/")
    if (
        not found
        or scheme not in ("https", "http", "file")
        or not path
        or (scheme == "file") != (server == "")
    ):
        raise ValueError("must be an https://, http:// or file:///absolute/path address")
    if "@" in server:
        raise ValueError("must not contain a password")
    if not text.isascii() or " " in text:
        raise MendableError(
            "must be written as it travels: ASCII without spaces",
            f"{quote(text, safe=_URL_SAFE)}",
        )
    return text


def _base(text: str) -> str:
    """Accept a server's address without a path too, since names are put behind it."""
    _source(text if text.startswith("file:") else f"{text.rstrip('/')}/x")
    return text


def _secret_file(path: Path) -> Path:
    """Refuse an address or several lines: somebody wrote the secret itself, which is then not shown."""
    text = str(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text) or not text.isprintable():
        raise MendableError(
            "must name a file that holds the password or address, and never be it",
            'write it into a file with mode 0600, and name that, such as "keys/NAME"',
        )
    return path


def source_or_path(text: str) -> str:
    """Return an address as it is, and an absolute path on a host too; raise ``ValueError`` for others."""
    return _remote_path(text) if text.startswith("/") else _source(text)


def _timezone(text: str) -> str:
    known = [folder for folder in map(Path, TZPATH) if (folder / "Etc/UTC").is_file()]
    sane = all(re.fullmatch(r"[A-Za-z0-9_+-]{1,64}", part, re.ASCII) for part in text.split("/"))
    # Without a time zone database on this machine only the form can be checked.
    if not sane or (known and not any((folder / text).is_file() for folder in known)):
        raise ValueError('must be a time zone such as "Europe/Berlin"')
    return text


def _matching(pattern: re.Pattern[str], words: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _remote_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path on the host, starting with '/'")
    if ".." in text.split("/"):
        raise ValueError("must not contain '..'")
    return text


def _file_name(text: str) -> str:
    parts = text.split("/")
    if not all(_FILE_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError("must be a path inside the folder: letters, digits and . _ + - between slashes")
    return text


def _model_id(text: str) -> str:
    # Its parts are folders on hosts.
    if not _MODEL_ID.fullmatch(text) or any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(
            "must be letters, digits and . _ : / + -, at most 128 characters, without a part that is empty, "
            "'.' or '..'"
        )
    return text


def _one_line(text: str) -> str:
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("must be one line without control characters")
    return text


def duration(value: Any) -> timedelta:
    """Read a duration such as ``"1h30m"``; raise ``ValueError`` when it is none, or not above zero."""
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, str) and value and (match := _DURATION.fullmatch(value.replace(" ", ""))):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        raise ValueError('must be a duration such as "90s", "15m", "2h" or "1h30m"')
    if not timedelta(seconds=1) <= found <= timedelta(days=366) or found.microseconds:
        raise ValueError("must be a duration of whole seconds, from one second to 366 days")
    return found


def duration_text(value: timedelta) -> str:
    """Write a duration as ``duration`` reads it, such as ``"1h30m"``."""
    minutes, seconds = divmod(round(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


Text = Annotated[str, Field(strict=True, min_length=1, max_length=4096), AfterValidator(_one_line)]
Label = Annotated[str, Field(strict=True), AfterValidator(_label)]
Address = Annotated[str, Field(strict=True), AfterValidator(_address)]
Ip = Annotated[str, Field(strict=True), AfterValidator(_ip)]
Mac = Annotated[str, Field(strict=True), AfterValidator(_mac)]
PciAddress = Annotated[str, Field(strict=True), AfterValidator(_pci)]
GpuRef = Annotated[str, Field(strict=True), AfterValidator(_gpu_ref)]
Source = Annotated[Text, AfterValidator(_source)]
SecretFile = Annotated[Path, AfterValidator(_secret_file)]
BaseAddress = Annotated[Text, AfterValidator(_base)]
TimeZone = Annotated[Text, AfterValidator(_timezone)]
Argument = Annotated[str, Field(strict=True, max_length=4096), AfterValidator(_one_line)]
Sha256 = Annotated[str, Field(strict=True), AfterValidator(_sha256)]
Fingerprint = Annotated[str, Field(strict=True), AfterValidator(_fingerprint)]
GpuUuid = Annotated[str, Field(strict=True), AfterValidator(_gpu_uuid)]
ServiceName = Annotated[
    str, Field(strict=True), _matching(_NAME, "must be a-z, 0-9, '-' and '_', at most 63 characters")
]
Slot = Annotated[
    str, Field(strict=True), _matching(_NAME, "must be a short name such as slot0: a-z, 0-9, '-' and '_'")
]
ModelId = Annotated[str, Field(strict=True), AfterValidator(_model_id)]
UserName = Annotated[
    str,
    Field(strict=True),
    _matching(_USER, "must be a Linux user name: a-z, 0-9, '-' and '_', at most 31 characters"),
]
PackageName = Annotated[
    str, Field(strict=True), _matching(_PACKAGE, "must be a Debian package name: a-z, 0-9, '+', '.' and '-'")
]
Interface = Annotated[
    str,
    Field(strict=True),
    _matching(_INTERFACE, "must be a network interface name of at most 15 characters"),
]
EnvName = Annotated[
    str,
    Field(strict=True),
    _matching(_ENV_NAME, "must be an environment variable name: letters, digits and '_'"),
]
CudaToolkit = Annotated[
    str,
    Field(strict=True),
    _matching(_CUDA, 'must be a CUDA release as its packages spell it, such as "12-8"'),
]
RocmRelease = Annotated[str, Field(strict=True), _matching(_ROCM, 'must be a ROCm release such as "10.0"')]
RemotePath = Annotated[Text, AfterValidator(_remote_path)]
FileName = Annotated[Text, AfterValidator(_file_name)]
HubRepo = Annotated[
    str, Field(strict=True), _matching(_HUB_REPO, "must be OWNER/NAME, such as Qwen/Qwen3-8B-GGUF")
]
HubRevision = Annotated[
    str, Field(strict=True), _matching(_HUB_REVISION, "must be a commit, a tag or a branch")
]
Version = Annotated[
    str, Field(strict=True), _matching(_VERSION, "must be a version: letters, digits and . _ + -")
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Prefix = Annotated[int, Field(strict=True, ge=8, le=126)]
Watts = Annotated[int, Field(strict=True, gt=0, le=100_000)]
Megahertz = Annotated[int, Field(strict=True, ge=100, le=10_000)]
ClocksMhz = Annotated[tuple[Megahertz, Megahertz], AfterValidator(_clocks)]
PcieWidth = Literal[1, 2, 4, 8, 12, 16, 32]
PcieGen = Annotated[int, Field(strict=True, ge=1, le=7)]
Percent = Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)]
Celsius = Annotated[float, Field(strict=True, ge=0, le=150, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0.1, le=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Bytes = Annotated[int, Field(strict=True, ge=0, le=2**60)]
Real = Annotated[float, Field(strict=True, ge=-1e9, le=1e9, allow_inf_nan=False)]
Gibibytes = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Flag = Annotated[bool, Field(strict=True)]
Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(duration_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["90s", "15m", "2h", "1h30m"]}),
]
