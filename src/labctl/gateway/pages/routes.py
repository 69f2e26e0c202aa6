"""Which paths are the gateway's own, which methods they know, who may read them, and what browsers may do.

Web pages of any origin may ask: they need a key, and where none is needed ``access`` turns strange ones away.
"""

from __future__ import annotations

from enum import Enum
from urllib.parse import unquote

from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask

PREWAKE = "/labctl/v1/prewake"
ONE_MODEL = "/v1/models/"


class Page(Enum):
    """The pages, by their paths."""

    FRONT = "/"
    MODELS = "/v1/models"
    MODEL = "/v1/models/{id}"
    HEALTH = "/health"
    METRICS = "/metrics"
    STATUS = "/labctl/v1/status"
    OPENAPI = "/labctl/v1/openapi.json"
    PREWAKE = PREWAKE
    OPTIONS = "*"


PATHS = {page.value: page for page in Page if page not in (Page.MODEL, Page.OPTIONS)}
OPEN = frozenset({Page.FRONT, Page.HEALTH, Page.OPENAPI, Page.OPTIONS})
NEEDS_SIGHT = frozenset({Page.METRICS, Page.STATUS})
"""For keys that may see hosts (``Key.sees``)."""

ALLOWED = "Authorization, Content-Type, X-Api-Key, Anthropic-Version, Anthropic-Beta, OpenAI-Beta"
"""What a browser may send that names nothing; one that names headers may send those."""


def page_of(ask: Ask) -> Page | None:
    """Return the page that is asked for; an OPTIONS of any path is one."""
    return Page.OPTIONS if ask.method == "OPTIONS" else _at(ask.path)


def _at(path: str) -> Page | None:
    page = PATHS.get(path)
    if page is None and path.startswith(ONE_MODEL) and len(path) > len(ONE_MODEL):
        return Page.MODEL
    return page


def model_asked(ask: Ask) -> str:
    """Return the id in the path of one model; ids may have slashes, as they are or as %2F."""
    return unquote(ask.path[len(ONE_MODEL) :])


def wrong_method(ask: Ask, page: Page) -> Answer | None:
    """Return the refusal of a method that a page does not know, with those that it knows."""
    knows = _methods(page)
    if page is Page.OPTIONS or ask.method in knows:
        return None
    allow = ", ".join(knows)
    refusal = problem(405, "wrong-method", f"{ask.path} knows {allow}, and not {ask.method}")
    return with_headers(refusal, ("Allow", allow))


def _methods(page: Page | None) -> tuple[str, ...]:
    """Return the methods of a page; what is no page of ours is for a model, or an engine's."""
    if page is None:
        return ("GET", "HEAD", "POST", "OPTIONS")
    return ("POST", "OPTIONS") if page is Page.PREWAKE else ("GET", "HEAD", "OPTIONS")


def with_headers(answer: Answer, *headers: tuple[str, str]) -> Answer:
    """Return an answer with more headers."""
    return Answer(answer.status, answer.body, answer.content_type, (*answer.headers, *headers), answer.close)


def preflight(ask: Ask) -> Answer:
    """Answer a browser that asks what it may send."""
    allow = ", ".join(_methods(_at(ask.path)))
    headers = ask.named.get(b"access-control-request-headers", b"").decode("latin-1")
    return Answer(
        200,
        b"",
        "text/plain; charset=utf-8",
        (
            ("Allow", allow),
            ("Access-Control-Allow-Methods", allow),
            ("Access-Control-Allow-Headers", headers or ALLOWED),
            ("Access-Control-Max-Age", "600"),
        ),
    )
