"""An example rack. Change it to describe your machines; labctl derives everything else from it.

This file is ordinary Python, so loops and variables work. `labctl` reads it, and plain `pyinfra` does too.
Check it with `labctl validate`: that connects to nothing, and names every mistake with its line.
The machines are those of the virtual rack (`labctl lab up`), so you can try all of it without any hardware.

A name that starts with `_` is your own business. Other lists would be taken for groups of hosts.
"""

from labctl.inventory import Circuit, Command, Gpu, Host, IdlePolicy, Psu, Rack, Ssh, WakeOnLan

# The wall: a 16 A fuse at 230 V. Cables may carry only 80 % of that for hours, which is about 2.9 kW.
_office = Circuit(name="office", volts=230, amps=16, continuous_share=0.8)

# A box with eight RTX 3090 on two power supplies. Each card may draw 350 W; eight of them would trip the
# fuse, so `cap_w` caps each at 200 W. `cap_reason` says why: labctl refuses to raise a cap that protects a
# circuit or a power supply, unless you insist. A single card can have its own: Gpu(..., cap_w=..., ...).
# `slot` is your own name for the place that a card sits in. Once the drivers are installed you can add the
# card's UUID (`nvidia-smi -L` prints it). Numbers like "GPU 3" change between boots, so labctl never uses
# them. `base_w` is everything but the cards, under load.
_rig = Host(
    name="rig",
    address="10.66.0.11",
    roles=["gpu"],
    gpus=[Gpu(model="RTX 3090", slot=f"slot{n}") for n in range(8)],
    cap_w=200,
    cap_reason="circuit",
    psus=[
        # "board" is the mainboard with its processor, fans and disks.
        Psu(name="psu0", watts=1600, circuit="office", feeds=["board", "slot0", "slot1", "slot2", "slot3"]),
        Psu(name="psu1", watts=1600, circuit="office", feeds=["slot4", "slot5", "slot6", "slot7"]),
    ],
    base_w=250,
    wake=WakeOnLan(mac="52:54:00:66:00:11"),
)

# A Strix Halo mini PC: processor and graphics are one chip and share 128 GiB of memory. Such a chip counts as
# the card, with all of its watts; it has no power cap.
_strix = Host(
    name="strix",
    address="10.66.0.12",
    roles=["gpu"],
    gpus=[Gpu(model="Radeon 8060S", slot="igpu")],
    unified_memory_gib=128,
    base_w=30,
    wake=WakeOnLan(mac="52:54:00:66:00:12"),
)

# A mini PC that sleeps when nobody has used it for half an hour. `wake` says how it is brought back: by a
# Wake-on-LAN packet to its network card. Such packets do not pass routers, so `relay` names a host in the
# same network that sends them.
_mini = Host(
    name="mini",
    address="10.66.0.13",
    base_w=35,
    wake=WakeOnLan(mac="52:54:00:66:00:13", relay="hub"),
    idle=IdlePolicy(suspend=True, after="30m"),
)

# Two DGX Sparks. They come with the vendor's own system; `vendor_image` makes labctl leave its drivers alone.
# This is plain Python: one loop, two hosts.
_sparks = [
    Host(
        name=f"spark{n}",
        address=f"10.66.0.{13 + n}",
        roles=["gpu"],
        gpus=[Gpu(model="GB10", slot="soc")],
        unified_memory_gib=128,
        vendor_image=True,
        base_w=100,
        depends_on=["nas"],  # their models lie there, so it must be awake first
    )
    for n in (1, 2)
]

# The disks. Other hosts need it, so it never sleeps.
_nas = Host(name="nas", address="10.66.0.16", roles=["storage", "always-on"], base_w=40)

# A small computer that is always on. A service is any program: labctl makes a systemd unit of it. This one
# shows a folder to programs on the same machine. It listens on 127.0.0.1, which is the default: nobody else
# gets in. Engines that serve models are services, too: `serving.py` in the folder `inventory` of labctl
# itself is a rack that has some.
_hub = Host(
    name="hub",
    address="10.66.0.17",
    roles=["always-on"],
    base_w=10,
    services=[
        Command(
            name="docs",
            argv=["/usr/bin/python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"],
            port=8000,
            working_dir="/usr/share/doc",
        ),
    ],
)

rack = Rack(
    name="example",
    # The user who logs in on every host and may become root there without a password, and the private key for
    # it (beside this file). `labctl init` makes a new pair for you; put the public half on your hosts with
    # `ssh-copy-id -i inventory/keys/operator.pub admin@HOST`.
    ssh=Ssh(user="admin", key="keys/operator"),
    timezone="Etc/UTC",
    circuits=[_office],
    hosts=[_rig, _strix, _mini, *_sparks, _nas, _hub],
)

# For plain pyinfra: one group with all hosts, and one group for each role.
globals().update(rack.groups())
