"""Engines in Python: vLLM, SGLang and TabbyAPI.

They compile and cache at run time, and by default fetch models by name; so each gets caches of its own below
its unit's CacheDirectory and is told to stay offline: the model is a folder on the host, or nothing. Keys go
where the engine can take them without a command line: vLLM by its environment, SGLang by a configuration file
that it merges into its arguments, TabbyAPI by ``api_tokens.yml`` in its folder.

vLLM chose ``--task`` for models that are not for chat until 0.10, and ``--runner`` since (its documentation
of pooling models). SGLang's ``/health`` generates a token unless told otherwise, which would keep the card
from ever looking idle. TabbyAPI knows no flags for most of its options, only its config.yml; its admin key is
the clients' key, since the inventory holds one.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from labctl.inventory import Host, Model, Rack, Sglang, TabbyApi, Vllm
from labctl.inventory.services import Engine
from labctl.render import HEADER, places
from labctl.render.credentials import Credential
from labctl.render.engines import ray
from labctl.render.engines.cards import visible
from labctl.render.engines.terms import ConfigFile, Launch, flags, options

CONFIGS = "/etc/labctl/tabbyapi"
_RUNNERS_SINCE = (0, 10, 1)
_TASKS = {"embedding": "embed", "rerank": "score"}
# Tokens drafted at a time where the inventory says that the model drafts, and no more.
_DRAFTED = 3
_TOKENS = '{"api_key": "{secret}", "admin_key": "{secret}"}\n'
_DRAFT_FIELDS = ("draft_cache_mode",)


def caches(below: str) -> dict[str, str]:
    """Return the environment that keeps all caches below one folder, and everything offline."""
    return {
        "HF_HOME": f"{below}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TRITON_CACHE_DIR": f"{below}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{below}/inductor",
        "VLLM_CACHE_ROOT": f"{below}/vllm",
        "XDG_CACHE_HOME": below,
    }


def _caches(unit: str, engine: Engine) -> dict[str, str]:
    return caches(f"/var/cache/labctl-{unit}" + ("" if unit == engine.name else f"/{engine.name}"))


def vllm(rack: Rack, host: Host, engine: Vllm, *, port: str, unit: str) -> Launch:
    """Return how vLLM is started for an engine of the service ``unit``."""
    model = rack.model(engine.model)
    program = places.program(rack, host, engine)
    argv = [program, "serve", model.main, "--host", engine.listen, "--port", port]
    argv += ["--served-model-name", model.id, *model.aliases]
    argv += _pooling(rack, host, engine, model)
    argv += flags(engine, "cluster")
    reads = [program, model.main, *engine.extra_args]
    if not engine.speculative_config and (drafting := _vllm_drafting(rack, model)):
        argv += ["--speculative-config", json.dumps(drafting, sort_keys=True)]
        reads += [drafting["model"]] if "model" in drafting else []
    env = {**_caches(unit, engine), "VLLM_NO_USAGE_STATS": "1", **visible(host, engine)}
    if engine.enable_sleep_mode:
        env["VLLM_SERVER_DEV_MODE"] = "1"  # without it there is no way to ask for sleep
    files: tuple[ConfigFile, ...] = ()
    secrets: tuple[Credential, ...] = ()
    if engine.api_key is not None:
        secrets = (Credential(unit, "env", engine.api_key, "VLLM_API_KEY={secret}\n", environment=True),)
    if engine.cluster is not None:
        argv += ["--distributed-executor-backend", "ray"]
        joined, token = ray.driver(rack, host, engine, unit)
        env, secrets = env | joined, (*secrets, *token)
        files = (ray.left_behind(env),)
    return Launch((*argv, *engine.extra_args), env, tuple(reads), secrets, files)


def _pooling(rack: Rack, host: Host, engine: Vllm, model: Model) -> list[str]:
    if model.kind not in _TASKS:
        return []
    found = places.choice(rack, host, engine)
    numbers = re.findall(r"\d+", found.build.version) if found is not None else []
    if numbers and tuple(map(int, numbers[:3])) < _RUNNERS_SINCE:
        return ["--task", _TASKS[model.kind]]
    return ["--runner", "pooling"]


def _vllm_drafting(rack: Rack, model: Model) -> dict[str, Any]:
    if model.draft is not None:
        draft = rack.model(model.draft).main
        return {"method": "draft_model", "model": draft, "num_speculative_tokens": _DRAFTED}
    return {"method": "mtp", "num_speculative_tokens": 1} if model.mtp else {}


def sglang(rack: Rack, host: Host, engine: Sglang, *, port: str, unit: str) -> Launch:
    """Return how SGLang is started for an engine of the service ``unit``."""
    model = rack.model(engine.model)
    program = places.program(rack, host, engine)
    argv = [program, "-m", "sglang.launch_server", "--model-path", model.main]
    argv += ["--host", engine.listen, "--port", port, "--served-model-name", model.id, "--enable-metrics"]
    argv += ["--is-embedding"] if model.kind in _TASKS else []
    reads = [program, model.main, *engine.extra_args]
    if engine.speculative_algorithm is None and model.draft is not None:
        draft = rack.model(model.draft).main
        argv += ["--speculative-algorithm", "STANDALONE", "--speculative-draft-model-path", draft]
        reads.append(draft)
    elif engine.speculative_algorithm is None and model.mtp:
        argv += ["--speculative-algorithm", "NEXTN"]
    argv += flags(engine)
    secrets: tuple[Credential, ...] = ()
    if engine.api_key is not None:
        secrets = (Credential(unit, "sglang.yaml", engine.api_key, 'api-key: "{secret}"\n'),)
        argv += ["--config", secrets[0].inside]
    env = {**_caches(unit, engine), "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
    return Launch((*argv, *engine.extra_args), {**env, **visible(host, engine)}, tuple(reads), secrets)


def tabbyapi(rack: Rack, host: Host, engine: TabbyApi, *, port: str, unit: str) -> Launch:
    """Return how TabbyAPI is started for an engine of the service ``unit``.

    Under llama-swap the port comes by its flag, since llama-swap knows it only when it starts the engine.
    """
    model = rack.model(engine.model)
    program = places.program(rack, host, engine)
    home = places.base(rack, host, engine) or str(PurePosixPath(program).parent.parent)
    name = unit if unit == engine.name else f"{unit}.{engine.name}"
    config = ConfigFile(f"{CONFIGS}/{name}.yml", _tabby_config(rack, engine, model))
    argv = [program, f"{home}/src/main.py", "--config", config.path, "--port", port]
    before: list[tuple[str, ...]] = [("/bin/ln", "-sfnT", "--", f"{home}/src/templates", "templates")]
    secrets: tuple[Credential, ...] = ()
    if engine.api_key is not None:
        key = Credential(unit, "api_tokens.yml", engine.api_key, _TOKENS)
        secrets = (key,)
        before.append(("/bin/ln", "-sfnT", "--", key.inside, "api_tokens.yml"))
    reads = (program, config.path, model.main, *engine.extra_args)
    env = {**_caches(unit, engine), **visible(host, engine)}
    return Launch((*argv, *engine.extra_args), env, reads, secrets, (config,), tuple(before))


def _tabby_config(rack: Rack, engine: TabbyApi, model: Model) -> str:
    where = PurePosixPath(model.main)
    stated = {name: list(value) if isinstance(value, tuple) else value for name, value in options(engine)}
    draft: dict[str, Any] = {name: stated.pop(name) for name in _DRAFT_FIELDS if name in stated}
    if model.draft is not None:
        drafting = PurePosixPath(rack.model(model.draft).main)
        draft |= {"draft_model_dir": str(drafting.parent), "draft_model_name": drafting.name}
    elif model.mtp:
        draft |= {"draft_mode": "mtp"}
    config: dict[str, Any] = {
        "network": {"host": engine.listen, "disable_auth": engine.api_key is None},
        "logging": {"log_prompt": False, "log_requests": False},
        "model": {
            "model_dir": str(where.parent),
            "model_name": where.name,
            "use_dummy_models": True,
            "dummy_model_names": [model.id, *model.aliases],
            **stated,
        },
    }
    if draft:
        config["draft_model"] = draft
    return f"{HEADER}\n{yaml.safe_dump(config, sort_keys=False)}"
