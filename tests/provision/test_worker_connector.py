"""What the worker's connector remembers while a plan is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from labctl.provision.worker.connector import RackConnector


class Asked:
    """A question that has its answer already."""

    def get(self, limit_s: float) -> str:
        return "answer"


def connector(questions: list[str]) -> Any:
    """Return a connector whose one shell writes down what it is asked."""

    def ask(question: str) -> Asked:
        questions.append(question)
        return Asked()

    made: Any = RackConnector.__new__(RackConnector)
    made._remembered = None
    made._session = lambda *, root: SimpleNamespace(ask=ask)
    return made


def test_what_a_deploy_asks_while_it_is_read_is_not_asked_again_by_its_operations() -> None:
    questions: list[str] = []
    made = connector(questions)
    made.remember(on=True)  # the deploys are read
    made._ask("which machine is this", root=True, timeout_s=1)
    made.remember(on=True)  # their operations are evaluated
    made._ask("which machine is this", root=True, timeout_s=1)
    assert questions == ["which machine is this"]
    made.remember(on=False)  # something may have changed since
    made.remember(on=True)
    made._ask("which machine is this", root=True, timeout_s=1)
    assert len(questions) == 2
