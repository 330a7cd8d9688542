"""What is tried again, and what is not: an engine that keeps every result, as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from buildonce.stages import tool
from buildonce.stages.tool import ToolRun, run_tool

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Container:
    """A container that is known by its variables."""

    variables: tuple[tuple[str, str], ...] = ()

    def with_env_variable(self, name: str, value: str) -> Container:
        return replace(self, variables=(*self.variables, (name, value)))


@dataclass
class Engine:
    """Ends each command that it has not seen with the next exit code."""

    codes: list[int]
    kept: dict[Container, ToolRun] = field(default_factory=dict)

    async def run(self, container: Container, command: Sequence[str], _: str | None) -> ToolRun:
        if container not in self.kept:
            nowhere: Any = None
            code, now = self.codes.pop(0), datetime.now(UTC)
            self.kept[container] = ToolRun(command, code, "", "", now, nowhere)
        return self.kept[container]


@pytest.fixture
def a_day_later() -> Any:
    """Has the next run begin later than what is kept was made."""

    def go_on(engine: Engine) -> None:
        for container, run in engine.kept.items():
            engine.kept[container] = replace(run, ran_at=run.ran_at - timedelta(days=1))

    return go_on


async def run(engine: Engine, monkeypatch: pytest.MonkeyPatch, *settled: int) -> int:
    monkeypatch.setattr(tool, "_run", engine.run)
    container: Any = Container()
    return (await run_tool(container, ["pytest"], settled=settled or (0,))).exit_code


async def test_a_failure_is_told_at_once_and_tried_again_by_the_next_run(
    monkeypatch: pytest.MonkeyPatch, a_day_later: Any
) -> None:
    engine = Engine([1, 1, 0])
    assert await run(engine, monkeypatch) == 1
    a_day_later(engine)
    assert await run(engine, monkeypatch) == 1
    assert len(engine.codes) == 1
    a_day_later(engine)
    assert await run(engine, monkeypatch) == 0


async def test_what_passed_in_the_end_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, a_day_later: Any
) -> None:
    engine = Engine([1, 0])
    for wanted in (1, 0, 0, 0):
        assert await run(engine, monkeypatch) == wanted  # a third command would be one too many
        a_day_later(engine)


async def test_a_code_that_is_settled_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, a_day_later: Any
) -> None:
    engine = Engine([42])
    for _ in range(2):
        assert await run(engine, monkeypatch, 0, 42) == 42
        a_day_later(engine)
