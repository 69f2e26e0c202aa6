"""The doubles as wheels called ``vllm`` and ``sglang``, and a folder and a list to install them from.

Equal versions give equal bytes: names are sorted and dates are zero. What the doubles need
(prometheus_client, pure Python) is packed again from this machine's own installation, so that nothing has to
be fetched. The list pins every wheel by its sha256, as ``uv pip install --require-hashes`` wants it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from labctl.lab.fake.engines.double.sglang_server import VERSION as SGLANG_VERSION
from labctl.lab.fake.engines.double.vllm_server import VERSION as VLLM_VERSION

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_SUMMARY = "A DOUBLE made by labctl's lab for its tests; it is not the engine of this name."
_MAIN = (
    '"""Run {what}: a double."""\n\nimport sys\n\nfrom {module} import main\n\nif __name__ == "__main__":\n'
)
_MAIN += "    sys.exit(main())\n"


def vllm(out: Path, *, requires: Sequence[str] = (), version: str = VLLM_VERSION) -> Path:
    """Make the wheel ``vllm`` in ``out``; ``requires`` are further packages that it needs, such as ray."""
    programs = {"vllm": "vllm.double.vllm_server:main"}
    return _wheel(out, "vllm", version, programs, {}, ("prometheus-client", *requires))


def sglang(out: Path, *, version: str = SGLANG_VERSION) -> Path:
    """Make the wheel ``sglang`` in ``out``; ``python -m sglang.launch_server`` runs it, as the real one."""
    launch = _MAIN.format(what="SGLang's server", module="sglang.double.sglang_server")
    programs = {"sglang": "sglang.double.sglang_server:main"}
    return _wheel(out, "sglang", version, programs, {"launch_server.py": launch}, ("prometheus-client",))


def repacked(out: Path, name: str) -> Path:
    """Make a wheel of a pure Python package that is installed on this machine.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    found = importlib.metadata.distribution(name)
    stem = f"{found.metadata['Name'].replace('-', '_')}-{found.version}"
    content = {
        str(path): Path(str(found.locate_file(path))).read_bytes()
        for path in found.files or ()
        if ".." not in path.parts and "__pycache__" not in path.parts and path.name not in _LEFT_OUT
    }
    return _packed(out / f"{stem}-py3-none-any.whl", content, f"{stem}.dist-info")


def requirements(wheels: Iterable[Path]) -> str:
    """Return the list that pins these wheels, one ``NAME==VERSION --hash=...`` a line."""
    lines = []
    for wheel in sorted(wheels):
        name, version, *_ = wheel.name.split("-")
        lines.append(f"{name.replace('_', '-')}=={version} --hash=sha256:{_sha256(wheel).hex()}\n")
    return "".join(lines)


def _wheel(
    out: Path,
    name: str,
    version: str,
    programs: Mapping[str, str],
    modules: Mapping[str, str],
    requires: Sequence[str],
) -> Path:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {_SUMMARY}\n"
    metadata += "".join(f"Requires-Dist: {other}\n" for other in requires)
    scripts = "".join(f"{program} = {target}\n" for program, target in programs.items())
    own = {"__init__.py": f'"""{_SUMMARY}"""\n\n__version__ = "{version}"\n', **modules}
    content = {f"{name}/{module}": text.encode() for module, text in own.items()}
    for source in files("labctl.lab.fake.engines.double").iterdir():
        if source.name.endswith(".py"):
            content[f"{name}/double/{source.name}"] = source.read_bytes()
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: labctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    return _packed(out / f"{name}-{version}-py3-none-any.whl", content, info)


def _packed(path: Path, content: Mapping[str, bytes], info: str) -> Path:
    rows = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(content.items()))
    whole = {**content, f"{info}/RECORD": f"{rows}{info}/RECORD,,\n".encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in sorted(whole.items()):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr = 0o644 << 16
            wheel.writestr(member, data, zipfile.ZIP_DEFLATED)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
