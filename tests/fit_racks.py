"""Racks with models of known shapes, so that what fits can be reckoned by hand."""

from __future__ import annotations

from labctl.domain.fit.terms import GIB, Cache, Layer, ModelShape
from labctl.domain.problem import LabctlError
from labctl.inventory import Gpu, Host, LlamaServer, LlamaSwap, Model, Rack, Swapped
from labctl.inventory.fitting import HostFit, Sizes, host_fit
from labctl.inventory.served import loads

PIN = "a" * 64
LAYERS = 32


def shape(gib: float, *, cache_width: int = 1024, context: int = 32768) -> ModelShape:
    """Return a model of so many GiB of weights, whose cache takes 2 x width x 2 bytes a token and layer."""
    layer = Layer(int(gib * GIB) // LAYERS, 0, Cache("full", cache_width, cache_width))
    return ModelShape(
        "llama", (layer,) * LAYERS, 0, 0, vocabulary=1000, width=1024, heads=8, head_size=128,
        largest_ff=2048, trained_context=context,
    )  # fmt: skip


def model(name: str, **more: object) -> Model:
    return Model(id=name, source=f"https://example.org/{name}.gguf", sha256=PIN, **more)  # type: ignore[arg-type]


def engine(name: str, **more: object) -> LlamaServer:
    options = {"ctx_size": 4096, "parallel": 1, **more}
    return LlamaServer(name=f"e-{name}", model=name, **options)  # type: ignore[arg-type]


def swap(*names: str, **more: object) -> LlamaSwap:
    models = tuple(Swapped(engine=engine(name)) for name in names)
    return LlamaSwap(name="swap", port=9000, models=models, **more)  # type: ignore[arg-type]


def rack(*services: object, gpus: tuple[Gpu, ...] | None = None, names: str = "abcd", **more: object) -> Rack:
    cards = (Gpu(model="RTX 3090", slot="slot0"),) if gpus is None else gpus
    host = Host(name="rig", address="10.0.0.1", gpus=cards, services=services, **more)  # type: ignore[arg-type]
    return Rack(name="home", hosts=(host,), models=tuple(model(name) for name in names))


def sizes(**gib: float) -> Sizes:
    return Sizes({name: shape(size) for name, size in gib.items()})


def judged(wanted: Rack, known: Sizes, host: str = "rig") -> HostFit:
    (found,) = (one for one in loads(wanted) if one.host.name == host)
    return host_fit(wanted, found, known)


def unreadable(wanted: Model, host: str | None) -> ModelShape:
    raise LabctlError(f"{wanted.source} cannot be read: 404", hint="is the address right?")
