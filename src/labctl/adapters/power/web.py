"""One request to a small server on the network, a plug or a BMC, and an answer that can be believed.

The rules: one deadline bounds all of it, whatever the server trickles; an answer is read up to a bound, and
half of one is none; a redirect is not followed, since it could lead a password elsewhere; the environment's
proxies are not asked, since what is switched is near; and no error repeats an address or a header, where
secrets may be.

httpx limits each step of a request, not the whole, and the look-up of a name not at all. The network below
gives each step what is left of the deadline, which is why a transport of our own stands between httpx and
httpcore. Of several addresses each gets an equal part of it.
"""

from __future__ import annotations

import ipaddress
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore
import httpx

from labctl.ports.power import PowerError

DEADLINE_S = 8.0
MOST_BYTES = 1 << 20


class _Left:
    """What is left of a deadline, in seconds."""

    def __init__(self, deadline_s: float) -> None:
        self._until = time.monotonic() + deadline_s

    def of(self, timeout: float | None) -> float:
        """Return the seconds that a step may take."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    """A connection whose every step ends with the deadline."""

    def __init__(self, inner: httpcore.NetworkStream, left: _Left) -> None:
        self._inner = inner
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left.of(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left.of(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._left.of(timeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    def __init__(self, left: _Left) -> None:
        self._inner = httpcore.SyncBackend()
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _addresses(host, self._left.of(timeout))
        failure: Exception = httpcore.ConnectError("it has no address")
        for at, address in enumerate(addresses):
            part = self._left.of(timeout) / (len(addresses) - at)
            try:
                inner = self._inner.connect_tcp(address, port, part, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(inner, self._left)
        raise failure


def _addresses(name: str, deadline_s: float) -> list[str]:
    """Return the addresses of a name; the system's own look-up knows no deadline, so it may go on alone."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(name))]
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look() -> None:
        try:
            known = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found.put(list(dict.fromkeys(str(entry[4][0]) for entry in known)))
        except OSError as error:
            found.put(error)

    threading.Thread(target=look, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=deadline_s)
    except queue.Empty:
        raise httpcore.ConnectTimeout from None
    if isinstance(answer, OSError):
        raise httpcore.ConnectError(str(answer)) from answer
    return answer


class _Body(httpx.SyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        yield from self._inner

    def close(self) -> None:
        self._inner.close()


class _Transport(httpx.BaseTransport):
    def __init__(self, trust: ssl.SSLContext | None, left: _Left) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=trust, network_backend=_Network(left))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        core = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = self._pool.handle_request(core)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: status, headers in lower case, and all of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self, who: str) -> dict[str, Any]:
        """Return the JSON object in it.

        Raises:
            PowerError: there is none; ``who`` is whom to blame.
        """
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise PowerError(
                "bad-answer",
                f"{who} answers, but not as such a device does",
                "is the address right, and `driver`, where there is one?",
            )
        return found


class Web:
    """Requests to one server, all of them within one deadline."""

    def __init__(
        self,
        who: str,
        base: str,
        *,
        auth: httpx.Auth | None = None,
        trust: ssl.SSLContext | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Ask for nothing yet.

        Args:
            who: what to call the server in errors, such as "the plug at 10.0.0.7".
            base: its scheme, host and port; "" where each request names all of its address.
            auth: how to log in.
            trust: the certificates to believe, for https.
            deadline_s: seconds for all requests together.
        """
        self.who = who
        self._client = httpx.Client(
            base_url=base,
            auth=auth,
            transport=_Transport(trust, _Left(deadline_s)),
            timeout=httpx.Timeout(deadline_s),
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": "labctl", "accept-encoding": "identity"},
        )

    def __enter__(self) -> Web:
        """Keep the connection for several requests."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._client.close()

    def ask(self, method: str, url: str, **how: Any) -> Answer:
        """Send one request and return the answer, whatever its status; ``how`` is httpx's.

        Raises:
            PowerError: no whole answer came.
        """
        with _in_words(self.who):
            with self._client.stream(method, url, **how) as answer:
                body = bytearray()
                for piece in answer.iter_raw():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise PowerError(
                            "bad-answer",
                            f"{self.who} answers with more than {MOST_BYTES >> 20} MiB",
                            "is it the right address?",
                        )
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Answer(answer.status_code, headers, bytes(body))


def checked(answer: Answer, who: str, *, said: str = "") -> Answer:
    """Return an answer that means yes.

    Raises:
        PowerError: it means no; ``said`` are the server's own words, ``who`` whom to blame.
    """
    status = answer.status
    words = f"{who} answers {status}" + (f": {said}" if said else "")
    if 200 <= status < 300:
        return answer
    if status in (401, 403):
        what = "refuses the user or password" if status == 401 else "does not allow this user to do that"
        raise PowerError(
            "auth", f"{who} {what}" + (f": {said}" if said else ""), "check `user` and the password's file"
        )
    if 300 <= status < 400:
        raise PowerError(
            "bad-answer", f"{who} sends us elsewhere, which is not followed", "give the address it really has"
        )
    if status >= 500:
        raise PowerError("server-error", words, "look at its own page or log", transient=True)
    if status == 404:
        raise PowerError("unsupported", words, "is it the device, and the outlet, that the inventory says?")
    raise PowerError("refused", words, "it understood, and will not", transient=status == 429)


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return which certificates to believe: this machine's, or those in a file alone.

    Raises:
        PowerError: the file cannot be read or holds none.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:  # an ssl.SSLError is one as well
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise PowerError(
            "certificate", f"the certificates in {ca_file} cannot be used: {reason}", "give `ca_file` as PEM"
        ) from None


@contextmanager
def _in_words(who: str) -> Iterator[None]:
    """Turn what can go wrong on the way into a ``PowerError``."""
    try:
        yield
    except (httpcore.TimeoutException, httpx.TimeoutException):
        raise PowerError(
            "timeout", f"{who} does not answer in time", "is it on, and reachable from here?", transient=True
        ) from None
    except (httpcore.ConnectError, httpx.ConnectError) as error:
        raise _unconnected(who, error) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, ssl.SSLError):
        raise PowerError(
            "bad-answer", f"{who} ended the connection within its answer", "try again", transient=True
        ) from None
    except (httpx.InvalidURL, httpcore.UnsupportedProtocol, ValueError):
        raise PowerError("unsupported", f"{who} has an address that cannot be asked", "check it") from None


def _unconnected(who: str, error: Exception) -> PowerError:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return PowerError(
                "certificate",
                f"the certificate of {who} is not to be trusted: {cause.verify_message}",
                "give the certificate that signs it as `ca_file`, and the name in it as the address; "
                "look at it with: openssl s_client -showcerts -connect ADDRESS:PORT",
            )
        if isinstance(cause, ssl.SSLError):
            return PowerError("certificate", f"{who} speaks no TLS that is safe today", "renew its firmware")
        if isinstance(cause, ConnectionRefusedError):
            return PowerError(
                "refused",
                f"{who} refuses the connection",
                "is it the right address and port?",
                transient=True,
            )
    return PowerError(
        "no-route", f"{who} cannot be reached", "is the address right, and its network up?", transient=True
    )
