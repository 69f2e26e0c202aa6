"""One request to a service on the network, and what it means for a letter.

The rules: the whole of it ends within the deadline, whatever the other end trickles; no redirect is followed;
the environment's proxies and netrc are not asked; a body is read up to a bound. An answer of 2xx means
delivered. Whatever failed before the request was on its way, and every other answer, mean that it was not;
silence after that means nobody knows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from labctl.ports.letters import CourierError

DEADLINE_S = 15.0
_STEP_S = 10.0
_MOST_BYTES = 1 << 20
_Found = TypeVar("_Found")
# Nothing was sent yet when one of these is raised.
_BEFORE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)


def within(deadline_s: float, act: Callable[[], _Found]) -> _Found:
    """Return what ``act`` returns; it goes on alone when it takes longer.

    Raises:
        CourierError: of ``act``, or since it took too long.
    """
    found: list[_Found] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(act())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="courier")
    thread.start()
    thread.join(deadline_s)
    if failed:
        raise failed[0]
    if not found:
        raise CourierError(f"no answer within {deadline_s:g} s", certain=False)
    return found[0]


def post(url: str, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Send a JSON object to an address.

    Raises:
        CourierError: it was not taken, or perhaps was not; its words hold no address.
    """
    body = json.dumps(document).encode()
    headers = {"Content-Type": "application/json", **headers}
    status, _ = within(DEADLINE_S, lambda: _request("POST", url, body, headers))
    judge(status)


def get(url: str, headers: Mapping[str, str]) -> bytes:
    """Return what is behind an address.

    Raises:
        CourierError: it cannot be read.
    """
    status, body = within(DEADLINE_S, lambda: _request("GET", url, b"", headers))
    judge(status)
    return body


def send(url: str, body: bytes) -> None:
    """Send plain text to an address.

    Raises:
        CourierError: it was not taken, or perhaps was not.
    """
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    status, _ = within(DEADLINE_S, lambda: _request("POST", url, body, plain))
    judge(status)


def judge(status: int) -> None:
    """Raise ``CourierError`` unless an answer means that it was taken."""
    if 200 <= status < 300:
        return
    what = {
        301: "it wants to be asked elsewhere; give the address that it redirects to",
        302: "it wants to be asked elsewhere; give the address that it redirects to",
        401: "it wants a token or password, or another one",
        403: "it does not let us write there",
        404: "there is nothing behind the address; was it taken away?",
        429: "too much was sent there",
    }.get(status, "it did not take it")
    raise CourierError(f"{what} (status {status})", certain=True)


def _request(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        with httpx.Client(timeout=_STEP_S, trust_env=False, follow_redirects=False) as client:
            with client.stream(method, url, content=body, headers=dict(headers)) as answer:
                return answer.status_code, _bounded(answer)
    except _BEFORE as error:
        raise CourierError(_words(error), certain=True) from None
    except (httpx.HTTPError, UnicodeError, ValueError) as error:
        raise CourierError(_words(error), certain=False) from None


def _bounded(answer: httpx.Response) -> bytes:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            break
    return body


def _words(error: Exception) -> str:
    """Return why, without the words of the error itself: they may repeat the address."""
    match error:
        case httpx.ConnectTimeout():
            return "it cannot be reached in time"
        case httpx.ConnectError():
            return "it cannot be reached"
        case httpx.TimeoutException():
            return "it does not answer in time"
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return "its address is none that can be asked"
        case _:
            return "the connection broke off"
