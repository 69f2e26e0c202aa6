# ruff: noqa: E501 - one case a line reads best
"""Rack files with one mistake each, and what a person must be told. The body starts on line 5 of the file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    body: str
    line: int | None
    reason: str
    host: str = ""
    field: str = ""
    hint: str = ""


def one(host_arguments: str) -> str:
    return f'rack = Rack(name="r", hosts=[\n    Host(name="a", address="10.0.0.1",\n        {host_arguments}),\n])'


FIELDS = [
    Case("a misspelt field", one('gpus=[Gpu(model="RTX 3090", slot="s0", cap=200)]'), 7, "not a known field", "a", "gpus[0].cap", "did you mean cap_w?"),
    Case("watts as text", one('gpus=[Gpu(model="RTX 3090", slot="s0", cap_w="200W")]'), 7, "must be a whole number, not the text '200W'", "a", "gpus[0].cap_w", "write 200, without quotes and unit"),
    Case("watts with a fraction", one("base_w=35.5"), 7, "must be a whole number, not 35.5", "a", "base_w", "write 36"),
    Case("zero watts", one("base_w=0"), 7, "must be more than 0, not 0", "a", "base_w"),
    Case("watts as True", one("base_w=True"), 7, "must be a whole number, not True", "a", "base_w"),
    Case("a role that does not exist", one('roles=["gpus"]'), 7, "must be 'gpu', 'always-on' or 'storage'", "a", "roles[0]", "did you mean gpu?"),
    Case("text where a list belongs", one('roles=("gpu")'), 7, "must be a list, not the text 'gpu'", "a", "roles", "write ['gpu']"),
    Case("a port beyond all ports", one("open_ports=[22, 70000]"), 7, "must be at most 65535, not 70000", "a", "open_ports[1]"),
    Case("a card without a place", one('gpus=[Gpu(model="RTX 3090")]'), 7, "give `uuid`, `pci` or `slot`", "a", "gpus[0]"),
    Case("a card's uuid cut short", one('gpus=[Gpu(model="RTX 3090", uuid="GPU-1234")]'), 7, "must be a GPU UUID", "a", "gpus[0].uuid"),
    Case("a bad MAC", one('wake=WakeOnLan(mac="52:54:00:66:00")'), 7, "must be a MAC address", "a", "wake.mac"),
    Case("a multicast MAC", one('wake=WakeOnLan(mac="01:00:5e:00:00:01")'), 7, "must be the MAC address of one network card", "a", "wake.mac"),
    Case("a wake method as text", one('wake="wol"'), 7, "must be NoWake(), WakeOnLan(...)", "a", "wake"),
    Case("a wake method of an unknown kind", one('wake={"kind": "wifi"}'), 7, "must be NoWake(), WakeOnLan(...)", "a", "wake"),
    Case("a mistake in a dictionary", one('wake={"kind": "wol",\n "mac": "x"}'), 8, "must be a MAC address", "a", "wake.mac"),
    Case("a cap as text", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w="200", cap_reason="psu")]'), 8, "must be a whole number, not the text '200'", "a", "gpus[0].cap_w", "write 200, without quotes"),
    Case("a cap in words", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w="low", cap_reason="psu")]'), 8, "must be a whole number, not the text 'low'", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a known card that draws next to nothing", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n tdp_w=1)]'), 8, "no RTX 3090 draws 1 W at full load", "a", "gpus[0].tdp_w", "labctl counts 350 W"),
    Case("a negative cap", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=-200, cap_reason="psu")]'), 8, "must be more than 0, not -200", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap of nothing", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=0, cap_reason="psu")]'), 8, "must be more than 0, not 0", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap of a power station", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=1e9, cap_reason="psu")]'), 8, "must be a whole number, not 1000000000.0", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap in microwatts", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=200_000_000, cap_reason="psu")]'), 8, "must be at most 100000, not 200000000", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap as True", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=True, cap_reason="psu")]'), 8, "must be a whole number, not True", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap that is no number", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=float("nan"), cap_reason="psu")]'), 8, "must be a whole number, not nan", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap without end", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=float("inf"), cap_reason="psu")]'), 8, "must be a whole number, not inf", "a", "gpus[0].cap_w", "give watts, such as 200"),
    Case("a cap without a reason", one('gpus=[Gpu(model="RTX 3090", slot="s0", cap_w=200)]'), 7, "a cap needs its reason", "a", "gpus[0]", 'add cap_reason="circuit"'),
    Case("a host's cap without a reason", one("cap_w=200"), 6, "a cap needs its reason", "a", "Host", 'add cap_reason="circuit"'),
    Case("a reason without a cap", one('gpus=[Gpu(model="RTX 3090", slot="s0", cap_reason="psu")]'), 7, "caps nothing", "a", "gpus[0]", "add `cap_w`, or remove it"),
    Case("a reason of one's own", one('gpus=[Gpu(model="RTX 3090", slot="s0",\n cap_w=200, cap_reason="nois")]'), 8, "must be 'circuit', 'psu', 'efficiency', 'noise' or 'heat'", "a", "gpus[0].cap_reason", "did you mean noise?"),
    Case("a bus address cut short", one('gpus=[Gpu(model="RTX 3090", pci="3b:00")]'), 7, "must be a PCI address", "a", "gpus[0].pci", "copy all of it"),
    Case("clocks in the wrong order", one('gpus=[Gpu(model="RTX 3090", slot="s0", clocks_mhz=(1500, 210))]'), 7, "the lowest clock, then the highest", "a", "gpus[0].clocks_mhz", "write (210, 1500)"),
    Case("a single clock", one('gpus=[Gpu(model="RTX 3090", slot="s0", clocks_mhz=1500)]'), 7, "must be a list, not 1500", "a", "gpus[0].clocks_mhz", "the lowest and the highest"),
    Case("more memory than any machine", one("unified_memory_gib=10**12"), 7, "must be at most 65536", "a", "unified_memory_gib", "give GiB, such as 128"),
    Case("a driver branch as text", one('nvidia=Nvidia(branch="580")'), 7, "must be a whole number", "a", "nvidia.branch", "write 580, without quotes"),
    Case("a driver from nobody", one('nvidia=Nvidia(source="nvidea")'), 7, "must be 'auto', 'distro' or 'nvidia'", "a", "nvidia.source", "did you mean nvidia?"),
    Case("a toolkit in another spelling", one('nvidia=Nvidia(cuda_toolkit="12.8")'), 7, 'such as "12-8", not the text \'12.8\'', "a", "nvidia.cuda_toolkit"),
    Case("a ROCm release as a number", one("amd=Amd(rocm=10.0)"), 7, "must be text, not 10.0", "a", "amd.rocm", 'write "10.0"'),
    Case("a mirror whose key nobody vouches for", one('amd=Amd(mirror=AptMirror(url="https://e.org/rocm", key="k.asc"))'), 7, "give `key` and `fingerprint` together", "a", "amd.mirror", "gpg --show-keys"),
    Case("a fingerprint cut short", one('amd=Amd(mirror=AptMirror(url="https://e.org/rocm", key="k.asc", fingerprint="D0F0"))'), 7, "40 hex digits", "a", "amd.mirror.fingerprint", "gpg --show-keys"),
    Case("a backend that does not exist", one('backend="metal"'), 7, "must be 'auto', 'cuda', 'rocm', 'vulkan' or 'none'", "a", "backend"),
    Case("a fuse of no number", 'rack = Rack(name="r", hosts=[], circuits=[\n    Circuit(name="c", amps=float("nan"))])', 6, "not nan", "", "circuits[0].amps", "give amperes, such as 16"),
    Case("a fuse without end", 'rack = Rack(name="r", hosts=[], circuits=[\n    Circuit(name="c", amps=float("inf"))])', 6, "must be at most 1000", "", "circuits[0].amps", "give amperes, such as 16"),
    Case("a power supply that spikes at will", one('psus=[Psu(name="p", watts=500, spike_tolerance=float("inf"))]'), 7, "must be at most 3", "a", "psus[0].spike_tolerance", "give a factor"),
    Case("a power supply of a power station", one('psus=[Psu(name="p", watts=10**9)]'), 7, "must be at most 100000", "a", "psus[0].watts", "give watts, such as 1600"),
    Case("an efficiency that makes of watts a number without end", one('psus=[Psu(name="p", watts=500, efficiency=5e-324)]'), 7, "must be at least 0.1", "a", "psus[0].efficiency", "give a share of 1"),
    Case("an efficiency in percent", one('psus=[Psu(name="p", watts=500, efficiency=90)]'), 7, "must be at most 1", "a", "psus[0].efficiency", "give a share of 1"),
    Case("a cable to a uuid cut short", one('psus=[Psu(name="p", watts=500, feeds=["GPU-12"])]'), 7, "must be a GPU UUID", "a", "psus[0].feeds[0]", "copy all of it"),
    Case("a password in the inventory", one('wake=Ipmi(address="10.0.0.9", user="u", password_file="f", password="secret")'), 7, "not a known field", "a", "wake.password", "did you mean password_file?"),
    Case("a duration as a number", one("idle=IdlePolicy(after=30)"), 7, "must be a duration such as", "a", "idle.after", 'write "30s", "30m"'),
    Case("a duration of nothing", one('idle=IdlePolicy(after="0m")'), 7, "from one second to 366 days", "a", "idle.after"),
    Case("an empty command", one('services=[Command(name="x", argv=[])]'), 7, "must not be empty", "a", "services[0].argv"),
    Case("a command without a path", one('services=[Command(name="x", argv=["python3"])]'), 7, "absolute path of a program", "a", "services[0].argv"),
    Case("a command as one text", one('services=[Command(name="x", argv="/bin/true")]'), 7, "must be a list", "a", "services[0].argv", "write ['/bin/true']"),
    Case("a line break in a unit's argument", one('services=[Command(name="x", argv=["/bin/true", "a\\nb"])]'), 7, "one line without control characters", "a", "services[0].argv[1]"),
    Case("something else than a service", one("services=[Gpu(model='RTX 3090', slot='s')]"), 7, "must be one of the services, such as Command(...), LlamaServer(...) or LlamaSwap(...), not Gpu(...)", "a", "services[0]"),
    Case("a relative path on the host", one('services=[Command(name="x", argv=["/bin/true"], working_dir="tmp")]'), 7, "absolute path on the host", "a", "services[0].working_dir"),
    Case("a secret name for an environment variable", one('services=[Command(name="x", argv=["/bin/true"], env={"A B": "c"})]'), 7, "environment variable name", "a", ""),
    Case("a user name with a blank", one('ssh=Ssh(user="a b")'), 7, "Linux user name", "a", "ssh.user"),
    Case("a package name with an option in it", one('packages=["vim", "-oDebug=1"]'), 7, "Debian package name", "a", "packages[1]"),
    Case("a plug of unknown make", one('wake=SmartPlug(driver="acme", address="10.0.0.9")'), 7, "must be 'shelly' or 'tasmota'", "a", "wake.driver"),
    Case("a name in capitals", 'rack = Rack(name="r", hosts=[\n    Host(name="Rig", address="10.0.0.1")])', 6, "must be a host name label", "Rig", "name", 'write "rig"'),
    Case("no name", 'rack = Rack(name="r", hosts=[\n    Host(address="10.0.0.1")])', 6, "is missing", "", "name"),
    Case("a port in the address", 'rack = Rack(name="r", hosts=[\n    Host(name="a", address="10.0.0.1:22")])', 6, "must be an IP address or a host name", "a", "address", "ssh=Ssh(port=22)"),
    Case("an address with too large a part", 'rack = Rack(name="r", hosts=[\n    Host(name="a", address="10.0.0.256")])', 6, "must be an IP address or a host name", "a", "address"),
    Case("values without names", 'rack = Rack(name="r", hosts=[\n    Host("a", "10.0.0.1")])', 6, "Host() takes named values only"),
    Case("a host that is text", 'rack = Rack(name="r", hosts=[\n    "a"])', 6, "must be Host(...), not the text 'a'", "", "hosts[0]"),
    Case("one host instead of a list", 'rack = Rack(name="r",\n    hosts=Host(name="a", address="10.0.0.1"))', 6, "must be a list, not Host(...)", "", "hosts"),
    Case("a mistake in a host written as a dictionary", 'rack = Rack(name="r", hosts=[\n    {"name": "a", "address": "10.0.0.1",\n     "base_w": -1}])', 7, "must be more than 0", "a", "base_w"),
    Case("a download without a checksum", 'rack = Rack(name="r", hosts=[], models=[\n    Model(id="m", source="https://e.org/m.gguf", path="/m")])', 6, "give `sha256`", "", "models[0]"),
    Case("a password in an address", 'rack = Rack(name="r", hosts=[], models=[\n    Model(id="m", source="https://u:p@e.org/m", path="/m", sha256="' + "0" * 64 + '")])', 6, "must not contain a password", "", "models[0].source"),
    Case("a time zone that does not exist", 'rack = Rack(name="r", hosts=[],\n    timezone="Mars/Olympus")', 6, "must be a time zone", "", "timezone"),
    Case("a circuit beyond its rating", 'rack = Rack(name="r", hosts=[], circuits=[\n    Circuit(name="c", continuous_share=80)])', 6, "must be at most 1", "", "circuits[0].continuous_share"),
    Case("an object that is in no host", 'Psu(name="p", watts="many")\nrack = Rack(name="r", hosts=[])', 5, "must be a whole number", "", "Psu.watts"),
]  # fmt: skip

ENDINGS = [
    Case("a syntax error", "rack = Rack(\nname=\n)", 7, "Python cannot read this line"),
    Case("a wrong indentation", "  x = 1\n y = 2", 5, "Python cannot read this line"),
    Case("an exception", "x = 1\nx / 0", 6, "ZeroDivisionError: division by zero"),
    Case("an exception in a function", "def f():\n    raise OSError('no disk')\n\nf()", 6, "OSError: no disk"),
    Case("an exception whose text fails", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", 7, "E"),
    Case("a message of many lines", "raise ValueError('\\n\\x1b[31mfirst\\nsecond')", 5, "ValueError: [31mfirst"),
    Case("an exit", "exit(0)", 5, "ends the program"),
    Case("an exit by exception", "raise SystemExit", 5, "ends the program"),
    Case("a generator's exit", "raise GeneratorExit", 5, "GeneratorExit"),
    Case("a recursion without end", "def f(): return f()\nf()", 5, "without end"),
    Case("a lack of memory", "raise MemoryError", 5, "MemoryError"),
    Case("a question", "input('name? ')", 5, "asks for input"),
    Case("reading standard input", "import sys\nsys.stdin.read()", 6, "asks for input"),
    Case("a print", "rack = Rack(name='r', hosts=[])\nprint('hello')", 6, "prints to standard output", hint="remove it, or print to sys.stderr"),
    Case("an unknown module", "import labcuddle", 5, "there is no module 'labcuddle'", hint="beside the rack file"),
    Case("an unknown class", "from labctl.inventory import Hots", 5, "labctl.inventory has no 'Hots'", hint="did you mean Host?"),
    Case("a class that is not imported", "x = Redfish(address='a')", 5, "Redfish is not imported", hint="from labctl.inventory import Redfish"),
    Case("a misspelt name", "circuits = 5\nprint_ = circuts", 6, "name 'circuts' is not defined", hint="did you mean circuits?"),
    Case("no rack", "pass", 1, "defines no `rack`", hint="add: rack = Rack("),
    Case("a rack by another name", "box = Rack(name='r', hosts=[])", 1, "defines no `rack`", hint="rename `box` to `rack`"),
    Case("a rack that is a list", "rack = []", 5, "`rack` is a list, not a Rack(...)", field="rack"),
    Case("a rack that is the class", "rack = Rack", 5, "`rack` is a ModelMetaclass, not a Rack(...)", field="rack"),
    Case("validation by hand", "x = 1\nHost.model_validate({'name': 'a'})", 6, "Host address is missing"),
]  # fmt: skip
