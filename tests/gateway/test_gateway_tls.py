"""Connections of clients: secured, by a certificate that changes under way, and never by a broken one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from labctl.domain.problem import LabctlError
from labctl.gateway import process
from labctl.gateway.access.tls import Certificate


def _write(folder: Path, name: str, *, password: bytes = b"") -> tuple[Path, Path]:
    """Write a certificate for localhost, which signs itself, and its key, over those that are there."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    from_day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(called, called, key.public_key(), x509.random_serial_number())
        .not_valid_before(from_day)
        .not_valid_after(from_day + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    certificate, private = folder / "gateway.pem", folder / "gateway.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(pem)
    return certificate, private


def _client(*, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.maximum_version = version
    return context


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def _name(port: int, *, server_hostname: str = "localhost") -> tuple[str, asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=_client(), server_hostname=server_hostname
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    name = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name[0].value), writer


async def _change_under_way(folder: Path) -> list[str]:
    secured = Certificate(*_write(folder, "the first"))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, ssl=secured.context)
    port = server.sockets[0].getsockname()[1]
    names = []
    old_name, old = await _name(port)
    names.append(old_name)
    _write(folder, "the second")
    unsaid, early = await _name(port)  # nobody said that it changed
    names.append(unsaid)
    secured.reload()
    new_name, new = await _name(port)
    names.append(new_name)
    by_address, other = await _name(port, server_hostname="127.0.0.1")  # names no server
    names.append(by_address)
    old.write(b"still here")
    await old.drain()
    (folder / "gateway.key").write_text("rubbish")
    with pytest.raises(LabctlError):
        secured.reload()
    after, last = await _name(port)
    names.append(after)
    for writer in (old, early, new, other, last):
        writer.close()
        with contextlib.suppress(ssl.SSLError):  # what was sent back is never read
            await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return names


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_certificate_changes_under_way_and_a_broken_one_changes_nothing(
    tmp_path: Path, factory: type[asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        names = runner.run(_change_under_way(tmp_path))
    assert names == ["the first", "the first", "the second", "the second", "the second"]


class _Runs:
    """A gateway that only echoes."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tls = tls
        self.ready = asyncio.Event()

    def protocol(self) -> asyncio.Protocol:
        return _Echo()

    async def start(self) -> None:
        self.ready.set()

    def reload(self) -> None: ...

    async def drain(self) -> None: ...

    async def close(self) -> None: ...


class _Nobody:
    def ready(self, status: str) -> None: ...

    def alive(self, status: str) -> None: ...

    def stopping(self) -> None: ...


async def _never_shakes(folder: Path) -> bytes:
    gateway = _Runs(Certificate(*_write(folder, "one")).context)
    runs = process.Process(gateway, _Nobody(), lambda line: None)
    sock = process.own_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    task = asyncio.create_task(runs.run([sock], "a test"))
    await gateway.ready.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01")  # the beginning of a hello
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    runs.stop()
    await task
    return said


def test_a_client_that_never_secures_its_connection_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HANDSHAKE_S", 0.05)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_never_shakes(tmp_path)) == b""


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory, and return the client's end."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="localhost"),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0]


def test_modern_versions_only_are_spoken_and_http_1_1_is_named(tmp_path: Path) -> None:
    secured = Certificate(*_write(tmp_path, "one"))
    client = _client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    end = _shake(secured.context, client)
    assert (end.version(), end.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    assert _shake(secured.context, _client(version=ssl.TLSVersion.TLSv1_2)).version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning):
        _shake(secured.context, _client(version=ssl.TLSVersion.TLSv1_1))


def _gone(certificate: Path, key: Path) -> None:
    certificate.unlink()


def _no_key(certificate: Path, key: Path) -> None:
    key.unlink()


def _rubbish(certificate: Path, key: Path) -> None:
    certificate.write_text("rubbish")


def _of_another(certificate: Path, key: Path) -> None:
    mine = key.read_bytes()
    _write(certificate.parent, "another")
    key.write_bytes(mine)


def _open_to_all(certificate: Path, key: Path) -> None:
    key.chmod(0o644)


def _encrypted(certificate: Path, key: Path) -> None:
    _write(certificate.parent, "hidden", password=b"secret")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_gone, r"the certificate can't be read: .*gateway\.pem: No such file"),
        (_no_key, r"the certificate can't be read: .*gateway\.key: No such file"),
        (_rubbish, r"gateway\.pem and .*gateway\.key are no certificate and its private key"),
        (_of_another, r"are no certificate and its private key: KEY_VALUES_MISMATCH"),
        (_open_to_all, r"everybody on this machine can read the private key .*gateway\.key"),
        (_encrypted, r"the private key is encrypted"),
    ],
)
def test_a_certificate_that_is_no_good_is_refused_with_its_reason(
    tmp_path: Path, spoil: object, words: str
) -> None:
    files = _write(tmp_path, "one")
    Certificate(*files)
    spoil(*files)  # type: ignore[operator]
    with pytest.raises(LabctlError, match=words) as caught:
        Certificate(*files)
    assert "BEGIN" not in str(caught.value)
