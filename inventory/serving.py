"""A rack that serves models: two boxes with graphics cards, and a small computer that is always on.

Everything about serving follows from the lists below: units, llama-swap's configuration on each box, its
peers on the small computer, and what fits into which card. Nothing is written down twice.

It is made for the virtual rack, so that you can try it with no hardware:

    sudo labctl lab engines inventory/lab_engines.py
    sudo labctl lab up inventory/serving.py --name serving

On machines of your own, pin releases and models of your own instead of `lab_engines`: docs/engines.md and
docs/models.md say how.
"""

from inventory.lab_engines import engines, mirror, models

from labctl.inventory import (
    Gpu,
    Host,
    LlamaServer,
    LlamaSwap,
    Rack,
    Secret,
    Ssh,
    SwapMatrix,
    Swapped,
    WakeOnLan,
)

# The key that llama-swap asks for: the first line of that file beside this one. It never stands in here.
_key = Secret(file="keys/serving")

# Two cards, a model on each. The matrix says which models may be loaded at the same time; labctl refuses the
# rack unless every such set fits into the cards.
_rig = Host(
    name="rig",
    address="10.67.0.11",
    roles=["gpu"],
    gpus=[
        Gpu(model="RTX 3090", slot="slot0", uuid="GPU-3090aaaa-0000-4000-8000-000000000000"),
        Gpu(model="RTX 3090", slot="slot1", uuid="GPU-3090aaaa-0000-4000-8000-000000000001"),
    ],
    base_w=120,
    memory_gib=64,
    wake=WakeOnLan(mac="52:54:00:67:00:11"),
    open_ports=[8080],
    services=[
        LlamaSwap(
            name="swap",
            port=8080,
            listen="0.0.0.0",
            api_key=_key,
            models=[
                Swapped(
                    engine=LlamaServer(
                        name="chat", model="tiny-chat", gpus=["slot0"], ctx_size=4096, parallel=2
                    ),
                    ttl="30m",
                ),
                Swapped(
                    engine=LlamaServer(name="coder", model="tiny-coder", gpus=["slot1"], ctx_size=4096),
                    ttl="30m",
                ),
            ],
            matrix=SwapMatrix(
                vars={"chat": "tiny-chat", "coder": "tiny-coder"}, sets={"both": "chat & coder"}
            ),
        ),
    ],
)

# A second box with a model of its own, which is loaded when somebody asks for it.
_desk = Host(
    name="desk",
    address="10.67.0.12",
    roles=["gpu"],
    gpus=[Gpu(model="RTX 3090", slot="slot0", uuid="GPU-3090bbbb-0000-4000-8000-000000000000")],
    base_w=90,
    memory_gib=32,
    wake=WakeOnLan(mac="52:54:00:67:00:12"),
    open_ports=[8080],
    services=[
        LlamaSwap(
            name="swap",
            port=8080,
            listen="0.0.0.0",
            api_key=_key,
            models=[
                Swapped(engine=LlamaServer(name="writer", model="tiny-writer", ctx_size=4096), ttl="30m"),
            ],
        ),
    ],
)

# The one address that clients need: it passes each request on to the box that has the model.
_hub = Host(
    name="hub",
    address="10.67.0.13",
    roles=["always-on"],
    base_w=10,
    services=[LlamaSwap(name="swap", port=8080, peers="rack")],
)

rack = Rack(
    name="serving",
    ssh=Ssh(user="admin", key="keys/operator"),
    hosts=[_rig, _desk, _hub],
    engines=engines,
    models=models,
    mirror=mirror,
)

globals().update(rack.groups())
