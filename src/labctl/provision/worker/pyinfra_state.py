"""pyinfra's State, fitted to hosts that go their own way.

pyinfra moves all hosts through its stages together; here one host may execute while another still plans.
So the stage is a property of the host in whose greenlet the question is asked, an operation belongs to one
host only (pyinfra would merge operations of different hosts into one), and a host that fails raises where it
fails instead of marking itself and going on with default values. The private parts of pyinfra that this
relies upon are pinned by tests/ops/test_pyinfra_contract.py.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import gevent
import pyinfra
from gevent.event import AsyncResult
from pyinfra.api.config import Config
from pyinfra.api.exceptions import OperationError
from pyinfra.api.host import Host, HostData
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_config, ctx_host

from labctl.domain.failures import Failure, HostError
from labctl.inventory import LoadedRack
from labctl.provision.worker.connector import RackConnector


class RackState(State):
    """A State whose stage depends on the host that asks."""

    @property
    def is_executing(self) -> bool:  # type: ignore[override]
        """Whether the host of this greenlet executes its operations now."""
        return bool(getattr(ctx_host.get(), "labctl_executing", False))

    @property
    def current_stage(self) -> StateStage:  # type: ignore[override]
        """Execute while the host of this greenlet executes, else Prepare."""
        return StateStage.Execute if self.is_executing else StateStage.Prepare

    def fail_hosts(self, hosts_to_fail: set[Host], activated_count: int | None = None) -> None:
        """Raise at once: what follows a failed fact would be decided on default values."""
        for host in hosts_to_fail:
            connector = host.connector
            assert isinstance(connector, RackConnector)
            if connector.lost is not None:
                raise connector.lost
            raise OperationError(connector.last_failure or "a fact could not be read")


def build(loaded: LoadedRack, hosts: tuple[str, ...], *, diff: bool, timeout_s: float) -> RackState:
    """Return the State for ``hosts`` of a rack, with pyinfra patched for our driver."""
    _patch()
    wanted = set(hosts)
    groups = {
        name: ([host for host in members if host in wanted], loaded.group_data.get(name, {}))
        for name, members in loaded.groups.items()
    }
    inventory = Inventory(([(host, loaded.host_data[host]) for host in hosts], {}), **groups)
    config = Config(PARALLEL=max(len(hosts), 1), DIFF=diff, CONNECT_TIMEOUT=timeout_s)
    state = RackState(inventory, config, check_for_changes=False)
    for host in inventory:
        state.activate_host(host)
    return state


@contextmanager
def in_context(state: State, host: Host) -> Iterator[None]:
    """Make ``host`` the one that operations and facts of this greenlet mean."""
    with ctx_config.use(state.config.copy()), ctx_host.use(host):
        yield


def twin(host: Host) -> Host:
    """Return a copy of ``host`` for evaluating one operation beside others of the same host.

    pyinfra notes on the host which operation is being evaluated; the connector and the data are shared.
    """
    clone = copy(host)
    data = HostData.__new__(HostData)
    data.__dict__["host"] = clone
    data.__dict__["override_datas"] = host.data.__dict__["override_datas"]
    data.__dict__["datas"] = (*host.data.__dict__["datas"][:-1], clone.get_deploy_data)
    clone.data = data
    clone.loop_position = list(host.loop_position)
    return clone


def prediction(meta: OperationMeta) -> AsyncResult:
    """Return where the predicted "does it change anything?" of an operation appears."""
    result: AsyncResult | None = getattr(meta, "labctl_prediction", None)
    return forget_prediction(meta) if result is None else result


def forget_prediction(meta: OperationMeta) -> AsyncResult:
    """Forget what was predicted for an operation, because things have changed since."""
    result = AsyncResult()
    meta.labctl_prediction = result  # type: ignore[attr-defined]
    return result


def _did_change(original: Callable[[OperationMeta], bool]) -> Callable[[OperationMeta], bool]:
    @functools.wraps(original)
    def did_change(meta: OperationMeta) -> bool:
        if meta.is_complete() or ctx_host.get() is None or getattr(ctx_host.get(), "labctl_executing", False):
            return original(meta)
        return bool(prediction(meta).get())

    return did_change


def _own_operation(names: set[str], state: State, host: Host) -> tuple[tuple[int, ...], str]:
    """Give each operation of each host an identity of its own, in the order of registration.

    Replaces a walk up the Python stack for each operation (1 ms), which pyinfra needs to line hosts up.
    """
    if state.is_executing:
        index = int(getattr(host, "labctl_nested", 0)) + 1
        host.labctl_nested = index  # type: ignore[attr-defined]
        return (index,), f"{host.name}:nested:{index}"
    op_hash = f"{host.name}:{len(host.op_hash_order)}"
    host.op_hash_order.append(op_hash)
    return (len(host.op_hash_order),), op_hash


def _refuse_ordering(pop: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(pop)
    def pop_global_arguments(state: State, host: Host, kwargs: dict[str, Any]) -> Any:
        for name in ("_run_once", "_serial", "_parallel"):
            if kwargs.get(name):
                raise HostError(
                    Failure(
                        "deploy-error",
                        f"an operation asks for {name}, but labctl runs hosts independently of each other",
                        f"drop {name}, use labctl apply --serial, or run this deploy with plain pyinfra",
                    )
                )
        return pop(state, host, kwargs)

    return pop_global_arguments


def _asked(get_fact: Callable[..., Any]) -> Callable[..., Any]:
    """Let the connector know that what runs now is the question of a fact."""

    @functools.wraps(get_fact)
    def asked(state: State, host: Host, *given: Any, **named: Any) -> Any:
        connector = host.connector
        assert isinstance(connector, RackConnector)
        connector.questions += 1
        try:
            return get_fact(state, host, *given, **named)
        finally:
            connector.questions -= 1

    return asked


@functools.cache
def _patch() -> None:
    """Patch pyinfra, once a process."""
    pyinfra.is_cli = True
    # pyinfra.api re-exports functions under the names of these modules, so an import statement finds those.
    arguments, facts, inventory, operation = (
        importlib.import_module(f"pyinfra.api.{name}")
        for name in ("arguments", "facts", "inventory", "operation")
    )
    connectors = {"ssh": RackConnector}
    vars(inventory)["get_all_connectors"] = lambda: connectors
    vars(inventory)["get_execution_connectors"] = lambda: connectors
    vars(importlib.import_module("pyinfra.api.host"))["get_fact"] = _asked(facts.get_fact)
    vars(operation)["solve_operation_consistency"] = _own_operation
    vars(operation)["pop_global_arguments"] = _refuse_ordering(operation.pop_global_arguments)
    OperationMeta.did_change = _did_change(OperationMeta.did_change)  # type: ignore[assignment,method-assign]
    known = list(arguments.all_global_arguments())
    vars(arguments)["all_global_arguments"] = lambda: known
    vars(facts)["all_global_arguments"] = lambda: known
    hub = gevent.get_hub()
    hub.exception_stream = None
    # A deploy that calls exit() ends its host, not the process.
    hub.SYSTEM_ERROR = (KeyboardInterrupt,)
