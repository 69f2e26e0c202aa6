"""The private parts of pyinfra that labctl stands on; a version that moves one of them fails here first."""

from __future__ import annotations

import importlib
import inspect
import shlex
from importlib.metadata import version
from typing import Any

import pyinfra
import pytest
from pyinfra.api import facts, operations
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import State, StateOperationHostData
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command, make_unix_command_for_host, write_stdin
from pyinfra.context import LocalContextObject, ctx_host, ctx_state

# The package exports a function of the same name.
operation = importlib.import_module("pyinfra.api.operation")


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("pyinfra").split(".")[:2] == ["3", "10"]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (facts._get_fact, ["state", "host", "cls", "args", "kwargs", "ensure_hosts", "apply_failed_hosts"]),
        (facts._make_command, ["command_attribute", "host_args"]),
        (facts._handle_fact_kwargs, ["state", "host", "cls", "args", "kwargs"]),
        (operation.solve_operation_consistency, ["names", "state", "host"]),
        (operation.get_operation_order_from_stack, ["state"]),
        (operation.execute_immediately, ["state", "host", "op_hash"]),
        (operations.run_host_op, ["state", "host", "op_hash"]),
        (operations._run_host_op_with_context, ["state", "host", "op_hash"]),
        (
            StateOperationHostData,
            ["command_generator", "global_arguments", "operation_meta", "parent_op_hash"],
        ),
        (OperationMeta, ["hash", "is_change"]),
        (StringCommand, ["bits", "_separator", "arguments"]),
        (FunctionCommand, ["function", "args", "func_kwargs", "kwargs"]),
        (Host.connect, ["self", "reason", "show_errors", "raise_exceptions"]),
        (Host.disconnect, ["self"]),
        (make_unix_command_for_host, ["state", "host", "command", "command_arguments"]),
        (
            SSHConnector.run_shell_command,
            ["self", "command", "print_output", "print_input", "arguments"],
        ),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_signature_is_as_it_was(function: Any, parameters: list[str]) -> None:
    assert _parameters(function) == parameters


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (OperationMeta, "_maybe_is_change"),
        (OperationMeta, "_commands"),
        (OperationMeta, "did_change"),
        (OperationMeta, "set_complete"),
        (Host, "in_op"),
        (Host, "current_op_hash"),
        (Host, "current_op_global_arguments"),
        (Host, "connected"),
        (Host, "noop"),
        (Host, "log"),
        (State, "is_executing"),
        (State, "fail_hosts"),
        (SSHConnector, "client"),
        (SSHConnector, "connect"),
        (SSHConnector, "disconnect"),
        (SSHConnector, "put_file"),
        (SSHConnector, "get_file"),
        (pyinfra, "is_cli"),
    ],
)
def test_an_attribute_is_still_there(owner: Any, name: str) -> None:
    assert hasattr(owner, name)


def test_an_operation_keeps_its_generator_as_inner() -> None:
    def nothing() -> Any:
        yield from ()

    assert operation.operation()(nothing)._inner is nothing


def test_a_commands_own_arguments_overrule_the_operations() -> None:
    seen: dict[str, Any] = {}

    class Recorder:
        print_output = print_input = False

        def run_shell_command(self, command: StringCommand, **arguments: Any) -> str:
            seen.update(arguments)
            return command.get_raw_value()

    recorder: Any = Recorder()
    command = StringCommand("cat", QuoteString("a b"), _stdin="x", _timeout=7)
    assert command.execute(recorder, recorder, {"_timeout": 1, "_sudo": True}) == "cat 'a b'"
    assert (seen["_stdin"], seen["_timeout"], seen["_sudo"]) == ("x", 7, True)
    assert {"_stdin", "_timeout", "_sudo"} <= set(CONNECTOR_ARGUMENT_KEYS)


def test_a_subclass_may_say_what_is_shown_while_its_raw_value_is_run() -> None:
    class Quiet(StringCommand):
        def get_masked_value(self) -> str:
            return "quiet"

    wrapped = make_unix_command(Quiet("run", QuoteString("it's")), _sudo=True)
    assert str(wrapped) == "sudo -H -n sh -c quiet"
    assert shlex.split(wrapped.get_raw_value()) == [
        "sudo",
        "-H",
        "-n",
        "sh",
        "-c",
        shlex.join(["run", "it's"]),
    ]


def test_a_function_that_takes_state_and_host_gets_them_and_its_word_is_the_outcome() -> None:
    def function(state: str, host: str) -> list[str]:
        return [state, host]

    command: Any = FunctionCommand(function, (), {})
    assert command.execute("the state", "the host", {}) == ["the state", "the host"]


def test_stdin_is_sent_whole_and_ends_in_a_newline() -> None:
    class Pipe:
        data, closed = b"", False

        def write(self, data: bytes) -> None:
            self.data += data

        def close(self) -> None:
            self.closed = True

    pipe = Pipe()
    write_stdin("a\nb", pipe)
    assert (pipe.data, pipe.closed) == (b"a\nb\n", True)


def test_the_current_host_is_per_greenlet_and_the_state_per_process() -> None:
    assert isinstance(ctx_host.context, LocalContextObject)
    assert not isinstance(ctx_state.context, LocalContextObject)
