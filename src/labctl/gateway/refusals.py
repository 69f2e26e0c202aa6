"""Say no, in one form for every reason and for every client.

A refusal is a problem document (RFC 9457) whose member ``error`` is what OpenAI's clients look for, so that
both a person with curl and a chat window show the same sentence. Its ``type`` is ``urn:labctl:problem:CODE``;
a code is a few words in lower case with hyphens, and stays what it is once it was published. ``detail`` says
what is wrong and with which host, ``hint`` what to do. Nothing of a request's body ever stands in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from math import ceil

import msgspec

from labctl.gateway.terms import Answer

CONTENT_TYPE = "application/problem+json"

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""What the clients of OpenAI and Anthropic call an error, by its status."""


def problem(
    status: int, code: str, detail: str, *, host: str = "", hint: str = "", retry_after_s: float = 0
) -> Answer:
    """Return a refusal; ``retry_after_s`` above 0 is rounded up to whole seconds and told in its header."""
    kind = KINDS.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    document: dict[str, object] = {
        "type": f"urn:labctl:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    if host:
        document["host"] = host
    if hint:
        document["hint"] = hint
    message = f"{detail} ({hint})" if hint else detail
    document["error"] = {"message": message, "type": kind, "code": code, "param": None}
    headers = (("Retry-After", str(ceil(retry_after_s))),) if retry_after_s > 0 else ()
    return Answer(HTTPStatus(status), msgspec.json.encode(document), CONTENT_TYPE, headers)


def code_of(answer: Answer) -> str:
    """Return the code of a refusal, or nothing for an answer that is none."""
    if answer.content_type != CONTENT_TYPE:
        return ""
    return msgspec.json.decode(answer.body, type=_Told).type.rpartition(":")[2]


def joined(answers: Sequence[Answer]) -> Answer:
    """Return one refusal for several reasons: the first, with what all of them say as its detail."""
    first = answers[0]
    if len(answers) == 1:
        return first
    told = [msgspec.json.decode(answer.body, type=_Told) for answer in answers]
    detail = "; ".join(dict.fromkeys(one.detail for one in told))
    code = told[0].type.rpartition(":")[2]
    made = problem(first.status, code, detail, host=told[0].host, hint=told[0].hint)
    return Answer(made.status, made.body, made.content_type, first.headers)


class _Told(msgspec.Struct):
    type: str
    detail: str
    host: str = ""
    hint: str = ""
