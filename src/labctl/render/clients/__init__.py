"""What a client needs to use the rack: a snippet in its own format, made from the list of endpoints.

A snippet names the key, it never holds it: every client reads ``$LABCTL_API_KEY``. It holds the timeouts that
a first answer needs when the host sleeps and nothing is loaded, since most clients give up much earlier.
What a person must know beside it (a tunnel, where the key is, what the client cannot be told) are notes,
which are no part of the snippet, so that it can be written to a file as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labctl.domain.problem import LabctlError
from labctl.inventory.explain import did_you_mean
from labctl.render.clients import code, editors, tools
from labctl.render.clients.target import CHATTING, Target

Render = Callable[[Target], str]


@dataclass(frozen=True, slots=True)
class Client:
    """A program that talks to models: ``file`` is where its configuration belongs, "" for code to adapt.

    ``language`` is what the snippet is written in; ``kinds`` are the models that it has a use for; ``note``
    says what the snippet cannot, where ``{whole_s}`` stands for the seconds of a whole answer.
    """

    name: str
    what: str
    language: str
    file: str
    render: Render
    kinds: frozenset[str] = CHATTING
    note: str = ""

    def notes(self, target: Target) -> list[str]:
        """Return what a person must know beside the snippet because of this client."""
        return [self.note.replace("{whole_s}", str(target.whole_s))] if self.note else []


_ANY = frozenset(("chat", "vision", "embedding", "rerank"))
_EMBEDS = CHATTING | {"embedding"}

CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client("opencode", "coding agent", "json", "~/.config/opencode/opencode.json", editors.opencode),
        Client(
            "continue",
            "editor extension",
            "yaml",
            "~/.continue/config.yaml",
            editors.continue_,
            _EMBEDS,
            "Continue reads ${{ secrets.LABCTL_API_KEY }} from ~/.continue/.env",
        ),
        Client(
            "aider",
            "coding agent",
            "yaml",
            "~/.aider.conf.yml",
            editors.aider,
            note='aider reads the key as OPENAI_API_KEY: export OPENAI_API_KEY="$LABCTL_API_KEY"',
        ),
        Client(
            "zed",
            "editor",
            "json",
            "~/.config/zed/settings.json",
            editors.zed,
            note="Zed has no timeout to set; ask once with `labctl clients curl` where it gives up early",
        ),
        Client(
            "codex",
            "coding agent",
            "toml",
            "~/.codex/config.toml",
            editors.codex,
            note="Codex speaks /v1/responses only, which an engine must have; llama-server has it",
        ),
        Client(
            "crush",
            "coding agent",
            "json",
            "~/.config/crush/crush.json",
            editors.crush,
            note="Crush has no timeout to set; ask once with `labctl clients curl` where it gives up early",
        ),
        Client(
            "roo",
            "editor extension",
            "json",
            "roo-code-settings.json",
            editors.roo,
            note="import it in Roo Code's settings and type the key there, since it reads no variable; in VS "
            'Code\'s settings.json: "roo-cline.apiRequestTimeout": {whole_s}',
        ),
        Client("openai-python", "library", "python", "", code.openai_python, _ANY),
        Client("openai-node", "library", "javascript", "", code.openai_node, _ANY),
        Client("langchain", "library", "python", "", code.langchain, _EMBEDS),
        Client("litellm", "library", "python", "", code.litellm, _EMBEDS),
        Client("curl", "command", "sh", "", code.curl, _ANY),
        Client(
            "llm",
            "command",
            "yaml",
            "extra-openai-models.yaml beside the database that `llm logs path` names",
            tools.llm,
            note="give llm the key once with: llm keys set labctl (it asks); it always waits for 600 s",
        ),
        Client(
            "open-webui",
            "chat in a browser",
            "yaml",
            "compose.override.yaml",
            tools.open_webui,
            _ANY,
            "in a container 127.0.0.1 is the container itself",
        ),
    )
}


def client(name: str) -> Client:
    """Return the client of that name.

    Raises:
        LabctlError: there is none.
    """
    if name not in CLIENTS:
        raise LabctlError(
            f"labctl knows no client called {name!r}",
            hint=did_you_mean(name, list(CLIENTS)) or "see: labctl clients",
        )
    return CLIENTS[name]


def render(wanted: Client, target: Target) -> str:
    """Return the snippet of a client, ending in a line break.

    Raises:
        LabctlError: no model of the endpoint is of a kind that the client has a use for.
    """
    usable = target.only(wanted.kinds)
    if not usable.models:
        kinds = ", ".join(sorted({served.kind for served in target.models})) or "nothing"
        raise LabctlError(
            f"{target.name} serves {kinds}, for which {wanted.name} has no use",
            hint="name another endpoint with --host, or another client; see: labctl clients",
        )
    text = wanted.render(usable)
    return text if text.endswith("\n") else f"{text}\n"
