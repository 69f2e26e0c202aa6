"""The shape of a model, from wherever its files lie, read once.

Where to read is decided file by file, in this order:

- A file that lies on hosts already, or whose address is ``file://``: on the host, over SSH. Without a host
  (a model that is in no rack), it is a file of this machine.
- A file with an address: pieces of it over HTTP, from the rack's mirror first, then from its own address
  with the model's token; if neither answers, on the host, where it may have been fetched to.

What was read is kept as JSON by the files' sha256, so a pinned model is read once and never again. Files
without one are read each time, since nothing says that they are still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from labctl.adapters.gguf_header import read_header
from labctl.domain.fit import config_shape, gguf_shape
from labctl.domain.fit.terms import Cache, Layer, ModelShape
from labctl.domain.problem import LabctlError, Problem
from labctl.fitting.safetensors import read_json, read_tensors
from labctl.inventory import mirrors
from labctl.inventory.models import Model, Placed
from labctl.inventory.rack import Rack
from labctl.inventory.secrets import Secret
from labctl.ports import Ranges

FORMAT = 2
"""Changes with what a shape holds or how it is read, so that nothing older is believed."""
CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_MOST_PARTS = 1024
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_T = TypeVar("_T")
_Open = Callable[[], AbstractContextManager[Ranges]]


@dataclass(frozen=True, slots=True)
class Readers:
    """The ways to a file: of this machine, behind an address (with a token), and on a host."""

    local: Callable[[Path], Ranges]
    web: Callable[[str, str | None], AbstractContextManager[Ranges]]
    host: Callable[[str, str], Ranges]


class Shapes:
    """Reads the shapes of a rack's models; many threads may ask at once."""

    def __init__(self, rack: Rack, ways: Readers, cache: Path | None, token: Callable[[Secret], str]) -> None:
        """Read nothing yet.

        Args:
            rack: whose mirror is asked first.
            ways: how files are reached.
            cache: folder in which shapes are kept, which exists; None keeps none.
            token: returns the value of a secret; asked only when a token is about to be sent.
        """
        self._rack = rack
        self._ways = ways
        self._cache = cache
        self._token = token

    def of(self, model: Model, *, host: str | None) -> ModelShape:
        """Return a model's shape; ``host`` is where its files lie or will lie.

        Raises:
            LabctlError: it cannot be read, or is none that labctl can plan with; says why.
        """
        key = _key(model.format, [one for one in model.layout() if one.name != model.mmproj])
        read = self._gguf if model.format == "gguf" else self._safetensors
        return self._once(model, key, _shape, lambda: read(model, host))

    def projector_bytes(self, model: Model, *, host: str | None) -> int:
        """Return the bytes of the weights of a model's projector, 0 where it has none; raises as ``of``."""
        projector = next((one for one in model.layout() if one.name == model.mmproj), None)
        if projector is None:
            return 0
        return self._once(
            model,
            _key("projector", [projector]),
            int,
            lambda: self._try(model, projector, host, read_header).tensor_bytes,
        )

    def _gguf(self, model: Model, host: str | None) -> ModelShape:
        parts = [one for one in model.layout() if one.name != model.mmproj and _is_gguf(one, model)]
        headers = [self._try(model, part, host, read_header) for part in parts]
        return gguf_shape.shape(gguf_shape.merged(headers))

    def _safetensors(self, model: Model, host: str | None) -> ModelShape:
        folder = _Folder(self, model, host)
        config = folder.read(CONFIG, read_json)
        names = folder.parts()
        tensors = [tensor for name in names for tensor in folder.read(name, read_tensors)]
        return config_shape.shape(config, tensors, file_bytes=sum(tensor.size for tensor in tensors))

    def _try(self, model: Model, placed: Placed, host: str | None, read: Callable[[Ranges], _T]) -> _T:
        """Read a file by the first way that leads to it; raise what the most telling one said."""
        failed: list[LabctlError] = []
        for way in self._open(model, placed, host):
            try:
                with way() as source:
                    if placed.size is not None and source.size != placed.size:
                        raise LabctlError(
                            f"{source.name}: it has {source.size} bytes, and the inventory says {placed.size}"
                        )
                    return read(source)
            except LabctlError as error:
                failed.append(error)
        if not failed:
            raise LabctlError(f"nobody said where {placed.name} can be read", hint="name a host that has it")
        first = failed[0].problems[0]
        others = [error.problems[0].reason for error in failed[1:]]
        reason = "; ".join((first.reason, *others))
        raise LabctlError(reason, hint=next((e.problems[0].hint for e in failed if e.problems[0].hint), ""))

    def _open(self, model: Model, placed: Placed, host: str | None) -> Iterator[_Open]:
        own = placed.url if placed.url.startswith(("http:", "https:")) else ""
        for url in mirrors.of_model(self._rack, model, placed) or (placed.url,):
            if url.startswith(("http:", "https:")):
                yield lambda url=url: self._web(model, url, own=url == own)  # type: ignore[misc]
            elif url.startswith("file:"):
                yield self._lying(url.removeprefix("file://"), host)
        if placed.url == "" or (own and host is not None):
            yield self._lying(placed.path, host)

    def _lying(self, path: str, host: str | None) -> _Open:
        if host is None:
            return lambda: nullcontext(self._ways.local(Path(path)))
        return lambda: nullcontext(self._ways.host(host, path))

    @contextmanager
    def _web(self, model: Model, url: str, *, own: bool) -> Iterator[Ranges]:
        sends = own and model.token is not None and mirrors.takes_token(url)
        token = self._token(model.token) if sends and model.token is not None else None
        with self._ways.web(url, token) as source:
            yield source

    def _once(
        self, model: Model, key: str | None, rebuild: Callable[[Any], _T], read: Callable[[], _T]
    ) -> _T:
        """Return what was kept, or read it and keep it."""
        if (kept := self._kept(key, rebuild)) is not None:
            return kept
        try:
            found = read()
        except LabctlError as error:
            raise LabctlError(_named(model, error), code=error.code) from error
        self._keep(key, asdict(found) if isinstance(found, ModelShape) else found)
        return found

    def _kept(self, key: str | None, rebuild: Callable[[Any], _T]) -> _T | None:
        """Return what was kept; a file that is none of ours is read anew and replaced."""
        if key is None or self._cache is None:
            return None
        try:
            document = json.loads((self._cache / f"{key}.json").read_text(encoding="utf-8"))
            found = document["found"]
            whole = document["format"] == FORMAT and document["sha256"] == _digest(found)
            return rebuild(found) if whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _keep(self, key: str | None, found: object) -> None:
        if key is None or self._cache is None:
            return
        text = json.dumps({"format": FORMAT, "sha256": _digest(found), "found": found})
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{key}-", dir=self._cache)
        except OSError:
            return  # reading again next time is all that it costs
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(self._cache / f"{key}.json")
        except OSError:
            Path(name).unlink(missing_ok=True)


class _Folder:
    """The files of a model in safetensors, by their names in its folder."""

    def __init__(self, shapes: Shapes, model: Model, host: str | None) -> None:
        self._shapes = shapes
        self._model = model
        self._host = host
        self._files = {one.name: one for one in model.layout()} if model.files else {}

    def parts(self) -> list[str]:
        """Return the names of the files that hold weights."""
        if self._files:
            found = [name for name in self._files if name.endswith(".safetensors")]
        else:
            found = self._listed()
        if not 0 < len(found) <= _MOST_PARTS:
            raise LabctlError(f"it has {len(found)} files with weights; that cannot be")
        return found

    def _listed(self) -> list[str]:
        try:
            index = self.read(INDEX, read_json)
        except LabctlError:
            return [SINGLE]
        weights = index.get("weight_map")
        names = list(weights.values()) if isinstance(weights, dict) else []
        if not all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in names):
            raise LabctlError(f"{INDEX} names files that cannot be")
        return sorted(set(names))

    def read(self, name: str, read: Callable[[Ranges], _T]) -> _T:
        """Read one of them."""
        if self._files and name not in self._files:
            raise LabctlError(f"{name} is not among its files", hint=f'add ModelFile(name="{name}", ...)')
        placed = self._files.get(name) or Placed(name, f"{self._model.root}/{name}", None, None, "")
        return self._shapes._try(self._model, placed, self._host, read)


def _is_gguf(placed: Placed, model: Model) -> bool:
    return placed.name.endswith(".gguf") or not model.files


def _named(model: Model, error: LabctlError) -> tuple[Problem, ...]:
    first = error.problems[0]
    return (
        Problem(f"the size of {model.id} is not known: {first.reason}", hint=first.hint, host=first.host),
    )


def _key(kind: str, files: Sequence[Placed]) -> str | None:
    """Return the name under which something is kept, None where nothing pins the files it comes from."""
    if any(one.sha256 is None for one in files):
        return None
    words = json.dumps([FORMAT, kind, [[one.name, one.sha256] for one in files]])
    return hashlib.sha256(words.encode()).hexdigest()


def _digest(found: object) -> str:
    """Return what tells whether a kept shape is as it was kept: any number would fit."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _shape(document: Mapping[str, Any]) -> ModelShape:
    layers = tuple(Layer(**{**layer, "cache": Cache(**layer["cache"])}) for layer in document["layers"])
    return ModelShape(**{**document, "layers": layers})
