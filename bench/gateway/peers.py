"""What the gateway is compared with, each set up as well as we know how.

nginx passes everything on, asks nobody for a key and writes no log: the floor. HAProxy reads ``model`` in the
body and asks for the key; ``http-no-delay`` keeps it from gluing tokens together, and ``http-reuse always``
shares connections. Both are unpacked from Debian's packages, not installed. LiteLLM comes from its own
package into an environment of its own, with one worker, no database and its logging down to errors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
MODEL = "m1"
LITELLM = "litellm[proxy]==1.106.2"
DEBS = ("nginx", "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")

_NGINX = """
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/nginx.err;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fcgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    scgi_temp_path {work}/nginx-scgi;
    keepalive_requests 100000000;
    tcp_nodelay on;
    upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://up;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
_HAPROXY = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option http-no-delay
    option abortonclose
    option http-buffer-request
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str "Bearer {key}" }}
    http-request set-var(txn.model) req.body,json_query('$.model')
    http-request deny deny_status 404 unless {{ var(txn.model) -m str {model} }}
    default_backend models
backend models
    server up 127.0.0.1:{upstream}
"""
_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


@dataclass(frozen=True)
class Around:
    """What everybody who is measured is given: ports, a private folder, and where things may be kept."""

    upstream: int
    work: Path
    cache: Path


@dataclass(frozen=True)
class Start:
    """How something is started: its command, its environment, and how long until it must listen."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    within_s: float = 20.0


Prepare = Callable[[Around, int], Start]


def nginx(around: Around, port: int) -> Start:
    """Return how nginx is started."""
    program, env = _debian("nginx", around.cache)
    config = around.work / "nginx.conf"
    config.write_text(_NGINX.format(work=around.work, upstream=around.upstream, port=port))
    return Start((program, "-e", f"{around.work}/nginx.err", "-p", str(around.work), "-c", str(config)), env)


def haproxy(around: Around, port: int) -> Start:
    """Return how HAProxy is started."""
    program, env = _debian("haproxy", around.cache)
    config = around.work / "haproxy.cfg"
    config.write_text(_HAPROXY.format(upstream=around.upstream, port=port, key=KEY, model=MODEL))
    return Start((program, "-db", "-f", str(config)), env)


def litellm(around: Around, port: int) -> Start:
    """Return how LiteLLM is started; its package is fetched the first time."""
    home = around.cache / "litellm"
    python, program = home / "bin" / "python", home / "bin" / "litellm"
    if not program.exists():
        print(f"getting {LITELLM}, once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", LITELLM], check=True, timeout=900)
    config = around.work / "litellm.yaml"
    config.write_text(_LITELLM.format(upstream=around.upstream, key=KEY, model=MODEL))
    env = {
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "HOME": str(around.work),
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "NO_DOCS": "True",
    }
    argv = (str(python), str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
    return Start((*argv, "--num_workers", "1", "--telemetry", "False"), env, within_s=120.0)


def _debian(name: str, cache: Path) -> tuple[str, Mapping[str, str]]:
    """Return a program of Debian's and the environment that it needs; unpack its package the first time."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    installed = shutil.which(name, path=env["PATH"])
    if installed:
        return installed, env
    root = cache / "debs"
    program = root / "usr/sbin" / name
    if not program.exists():
        print(f"getting {' '.join(DEBS)}, once", file=sys.stderr, flush=True)
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "update"], check=True, timeout=120)
        subprocess.run(["apt-get", "-qq", "download", *DEBS], cwd=root, check=True, timeout=120)
        for package in root.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True, timeout=60)
    triplet = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    return str(program), {**env, "LD_LIBRARY_PATH": os.fspath(root / "usr/lib" / triplet)}
