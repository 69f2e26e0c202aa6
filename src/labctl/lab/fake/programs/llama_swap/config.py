"""The configuration: read, filled up with defaults, and refused in llama-swap's words where it would be.

Like the real one it does not notice a key that it does not know.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .macros import BadConfig, Macros, declared, replaced, unresolved, with_variables, without_comments
from .matrix import Matrix

DEFAULT_GROUP = "(default)"
_ROUTING = (
    "config uses both the legacy top-level 'matrix'/'groups' keys and the new 'routing.router' block; please "
    "migrate the top-level keys into 'routing.router' and remove them"
)
_IGNORED = r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Config:
    """What a file says: models, aliases, groups or a matrix, peers, keys."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            BadConfig: it is refused.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise BadConfig(f"config {path}: open {path}: {(error.strerror or '').lower()}") from error
        try:
            raw = yaml.safe_load(with_variables(text)) or {}
        except yaml.YAMLError as error:
            raise BadConfig(f"yaml: {' '.join(str(error).split())}") from error
        if not isinstance(raw, dict):
            raise BadConfig("yaml: unmarshal errors: cannot unmarshal into a mapping")
        self.raw = _resolved(raw)
        self.models: dict[str, dict[str, Any]] = self.raw["models"]
        self.aliases = _aliases(self.models)
        self.keys: list[str] = [str(key) for key in self.raw.get("apiKeys") or []]
        self.peers: dict[str, dict[str, Any]] = self.raw.get("peers") or {}
        self.timeout: int = max(15, int(self.raw.get("healthCheckTimeout", 120)))
        self.groups: dict[str, dict[str, Any]] = {}
        self.matrix: Matrix | None = None
        self._numbers()
        self._router()
        self._keys_and_peers()
        self.ignored = [
            _regexp(one) for one in (self.raw.get("upstream") or {}).get("ignorePaths") or [_IGNORED]
        ]
        hooks = (self.raw.get("hooks") or {}).get("on_startup") or {}
        self.preload = [real for name in hooks.get("preload") or [] if (real := self.real(str(name).strip()))]

    def real(self, name: str) -> str | None:
        """Return the id of a local model by its id or alias."""
        return name if name in self.models else self.aliases.get(name)

    def peer_of(self, name: str) -> tuple[str, str] | None:
        """Return peer and model for ``PEER/MODEL``, or for a name that exactly one peer has."""
        whole = [
            (id_, one) for id_, peer in self.peers.items() for one in peer["models"] if f"{id_}/{one}" == name
        ]
        bare = [(id_, name) for id_, peer in self.peers.items() if name in peer["models"]]
        found = list(dict.fromkeys(whole)) or bare
        return found[0] if len(found) == 1 else None

    def _numbers(self) -> None:
        if int(self.raw.get("globalTTL", 0)) < 0:
            raise BadConfig("globalTTL must be >= 0")
        if self.raw.get("logToStdout", "proxy") not in ("proxy", "upstream", "both", "none"):
            raise BadConfig("logToStdout must be one of: proxy, upstream, both, none")
        every = (self.raw.get("performance") or {}).get("every", "5s")
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(every))
        took = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if not parts or took < 5:
            raise BadConfig(f"performance: every must be at least 5s, got {every}")
        store = self.raw.get("store")
        if store is not None and not Path(str(store.get("path", ""))).parent.is_dir():
            raise BadConfig(
                f"store.path: directory {Path(str(store.get('path', ''))).parent} is not writable"
            )
        for name, model in self.models.items():
            ttl = model.get("ttl", -1)
            model["ttl"] = self.raw.get("globalTTL", 0) if ttl == -1 else ttl
            if model["ttl"] < 0:
                raise BadConfig(f"model {name}: invalid TTL value {model['ttl']}")
            model["unloadTimeout"] = model.get("unloadTimeout") or self.raw.get("unloadTimeout") or 10
            if model.get("sendLoadingState") is None:
                model["sendLoadingState"] = bool(self.raw.get("sendLoadingState"))

    def _router(self) -> None:
        legacy = self.raw.get("matrix") is not None or bool(self.raw.get("groups"))
        router = (self.raw.get("routing") or {}).get("router") or {}
        settings = router.get("settings") or {}
        if legacy and (router.get("use") or settings.get("matrix") is not None or settings.get("groups")):
            raise BadConfig(_ROUTING)
        groups, matrix = self.raw.get("groups"), self.raw.get("matrix")
        if not legacy:
            use = router.get("use") or "group"
            if use not in ("group", "matrix"):
                raise BadConfig(f'routing.router.use: unknown router "{use}" (valid: group, matrix)')
            if use == "matrix" and settings.get("matrix") is None:
                raise BadConfig(
                    "routing.router.use is 'matrix' but routing.router.settings.matrix is not set"
                )
            groups = settings.get("groups") if use == "group" else None
            matrix = settings.get("matrix") if use == "matrix" else None
        if matrix is not None and groups:
            raise BadConfig("config cannot use both 'groups' and 'matrix'")
        if matrix is not None:
            self.matrix = Matrix(matrix, self.models)
        else:
            self._group(groups or {})

    def _group(self, given: dict[str, Any]) -> None:
        owner: dict[str, str] = {}
        for name, group in given.items():
            self.groups[name] = {"swap": True, "exclusive": True, "persistent": False, "members": [], **group}
            for place, member in enumerate(members := self.groups[name]["members"]):
                if member in members[:place]:
                    raise BadConfig(f"duplicate model member {member} found in group: {name}")
                if member in owner:
                    raise BadConfig(
                        f"model member {member} is used in multiple groups: {owner[member]} and {name}"
                    )
                if member not in self.models:
                    raise BadConfig(f'creating group router: no model config for "{member}"')
                owner[member] = name
        rest = sorted(set(self.models) - set(owner))
        self.groups[DEFAULT_GROUP] = {"swap": True, "exclusive": True, "persistent": False, "members": rest}
        self.group_of = {member: name for name, group in self.groups.items() for member in group["members"]}

    def _keys_and_peers(self) -> None:
        for place, key in enumerate(self.keys):
            if not key:
                raise BadConfig("empty api key found in apiKeys")
            if " " in key:
                raise BadConfig(f"apiKeys[{place}]: api key cannot contain spaces")
        for id_, peer in self.peers.items():
            if not peer.get("proxy"):
                raise BadConfig("proxy is required")
            if not peer.get("models"):
                raise BadConfig("peer models can not be empty")
            for name in peer["models"]:
                if f"{id_}/{name}" in self.models:
                    raise BadConfig(f'model ID "{id_}/{name}" conflicts with fully qualified peer model name')


def _resolved(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the file's values with all macros replaced and the models' defaults filled in."""
    own = declared("", raw.pop("macros", None))
    given = raw.pop("models", None) or {}
    found = {name: replaced(value, own) for name, value in raw.items()}
    port = int(found.get("startPort", 5800))
    if port < 1:
        raise BadConfig("startPort must be greater than 1")
    for name, value in found.items():
        if left := unresolved(value):
            raise BadConfig(f"{name}: unknown macro '${{{left}}}'")
    found["models"] = {}
    for id_ in sorted(given):
        model = dict(given[id_] or {})
        macros: Macros = [("MODEL_ID", id_), *own]
        for name, value in declared(f"model {id_}: ", model.pop("macros", None)):
            macros = [(known, put) for known, put in macros if known != name] + [(name, value)]
        for part in ("cmd", "cmdStop"):
            model[part] = without_comments(str(model.get(part) or ""))
        model["proxy"] = model.get("proxy") or "http://localhost:${PORT}"
        model.setdefault("checkEndpoint", "/health")
        model = replaced(model, macros)
        if "${PORT}" in model["cmd"]:
            model, port = replaced(model, [("PORT", port)]), port + 1
        elif "${PORT}" in model["proxy"]:
            raise BadConfig(
                f"model {id_}: proxy uses ${{PORT}} but cmd does not - ${{PORT}} is only available when used "
                "in cmd"
            )
        for part, value in model.items():
            if left := unresolved(value, pid=part == "cmdStop"):
                raise BadConfig(f"unknown macro '${{{left}}}' found in {id_}.{part}")
        try:
            urlsplit(model["proxy"])
        except ValueError as error:
            raise BadConfig(f"model {id_}: invalid proxy URL: {error}") from error
        found["models"][id_] = model
    return found


def _aliases(models: dict[str, dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for id_, model in models.items():
        for alias in model.get("aliases") or []:
            if alias in found:
                raise BadConfig(f"duplicate alias {alias} found in model: {id_}")
            found[alias] = id_
    return found


def _regexp(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise BadConfig(f'upstream.ignorePaths: invalid regular expression "{text}": {error}') from error
