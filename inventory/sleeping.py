r"""A rack that sleeps: a box with a model that goes to sleep when nobody uses it, and a small computer.

The small computer wakes the box for whoever asks for its model. It is made for the virtual rack, so that you
can try it with no hardware:

    sudo labctl lab engines inventory/lab_engines.py
    sudo labctl lab up inventory/sleeping.py --name sleeping
    labctl enroll --all --yes --inventory inventory/sleeping.py
    labctl apply inventory/sleeping.py
    labctl sleep-test mini --inventory inventory/sleeping.py
    labctl suspend mini --inventory inventory/sleeping.py
    labctl wake mini --inventory inventory/sleeping.py
    labctl suspend mini --inventory inventory/sleeping.py
    curl http://10.68.0.17:8000/v1/chat/completions -H "Authorization: Bearer $(cat inventory/keys/laptop)" \
      -d '{"model": "tiny-chat", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'

Each key is a long random word in a file of its own: inventory/keys/serving, which the box asks for, and
inventory/keys/laptop, which the gateway asks for. On machines of your own leave `wheels` out: labctl's
packages come from the package index then.
"""

from inventory.lab_engines import engines, mirror, models

from labctl.inventory import (
    Controller,
    Gateway,
    GatewayKey,
    Host,
    IdlePolicy,
    LlamaServer,
    Rack,
    Secret,
    Signals,
    Ssh,
    WakeOnLan,
)

# The controller and the gateway run here. It never sleeps, since somebody has to wake the others.
_hub = Host(name="hub", address="10.68.0.17", roles=["always-on"], base_w=10)

# It sleeps once nobody has used it for two minutes: no login, request or download, no job that is due soon.
# `labctl explain mini` says what keeps it awake. By day it stays awake, and it is woken in the morning.
_mini = Host(
    name="mini",
    address="10.68.0.13",
    base_w=35,
    wake=WakeOnLan(mac="52:54:00:68:00:13"),
    idle=IdlePolicy(
        suspend=True,
        after="2m",
        min_up="1m",
        awake=["mon-fri 8-18"],
        # All hosts of a virtual rack share the load of one machine, and no job there is worth a wait.
        signals=Signals(load=False, timers_within="1m"),
    ),
    open_ports=[8080],
    services=[
        LlamaServer(
            name="chat",
            model="tiny-chat",
            ctx_size=4096,
            parallel=2,
            port=8080,
            # The gateway asks from another host, so it shows a key.
            listen="0.0.0.0",
            api_key=Secret(file="keys/serving"),
        ),
    ],
)

rack = Rack(
    name="sleeping",
    ssh=Ssh(user="admin", key="keys/operator"),
    timezone="Etc/UTC",
    # It has a key of its own, which opens a door on the other hosts behind which it can only ask, and say
    # "sleep": ssh-keygen -t ed25519 -N "" -f inventory/keys/controller
    controller=Controller(host="hub", tick="2s", wheels="file:///opt/lab/mirror/wheels"),
    controller_key="keys/controller.pub",
    # One address for every model, asleep or not. Who asks for a model wakes its host; who only looks, never.
    gateway=Gateway(
        host="hub",
        listen="0.0.0.0",
        port=8000,
        keys=[GatewayKey(name="laptop", secret=Secret(file="keys/laptop"))],
    ),
    hosts=[_hub, _mini],
    engines=engines,
    models=models,
    mirror=mirror,
)

globals().update(rack.groups())
