"""A stage that does things side by side raises the error that it documents."""

from __future__ import annotations

import anyio
import pytest

from buildonce.stages import ToolBroken
from buildonce.stages.tasks import tasks

pytestmark = pytest.mark.anyio


async def fail(name: str) -> None:
    raise ToolBroken(f"{name} failed", remedy="mend it")


async def test_the_error_of_a_task_comes_as_it_is() -> None:
    cause = ValueError("cause")

    async def fail_for_a_cause() -> None:
        try:
            raise cause
        except ValueError as error:
            raise ToolBroken("it failed") from error

    with pytest.raises(ToolBroken, match="it failed") as caught:
        async with tasks() as group:
            group.start_soon(fail_for_a_cause)
    assert caught.value.__cause__ is cause


async def test_of_groups_in_groups_too_and_of_several_errors_one() -> None:
    async def inner() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail, "first")
            group.start_soon(fail, "second")

    with pytest.raises(ToolBroken, match="failed"):
        async with tasks() as group:
            group.start_soon(inner)


async def test_an_error_of_the_body_ends_the_others() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("waited")

    with pytest.raises(KeyError, match="body"):
        async with tasks() as group:
            group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            raise KeyError("body")
    assert ended == ["waited"]


async def test_without_an_error_all_are_awaited() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)

    async with tasks() as group:
        for number in range(3):
            group.start_soon(work, number)
    assert sorted(done) == [0, 1, 2]
