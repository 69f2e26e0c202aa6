"""A rack that sleeps: a box that goes to sleep when nobody uses it, and a small computer that wakes it.

It is made for the virtual rack, so that you can try it with no hardware:

    sudo labctl lab up inventory/sleeping.py --name sleeping
    labctl enroll --all --yes --inventory inventory/sleeping.py
    labctl apply inventory/sleeping.py
    labctl sleep-test mini --inventory inventory/sleeping.py
    labctl suspend mini --inventory inventory/sleeping.py
    labctl wake mini --inventory inventory/sleeping.py

On machines of your own leave `wheels` out: labctl's packages come from the package index then.
"""

from labctl.inventory import Controller, Host, IdlePolicy, Rack, Signals, Ssh, WakeOnLan

# The controller runs here. It never sleeps, since somebody has to wake the others.
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
)

rack = Rack(
    name="sleeping",
    ssh=Ssh(user="admin", key="keys/operator"),
    timezone="Etc/UTC",
    # It has a key of its own, which opens a door on the other hosts behind which it can only ask, and say
    # "sleep": ssh-keygen -t ed25519 -N "" -f inventory/keys/controller
    controller=Controller(host="hub", tick="2s", wheels="file:///opt/lab/mirror/wheels"),
    controller_key="keys/controller.pub",
    hosts=[_hub, _mini],
)

globals().update(rack.groups())
