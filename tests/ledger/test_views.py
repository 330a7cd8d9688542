"""Runs, rollouts and releases as the events tell them, above all those without an end."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.ledger import Ledger

from .memory import Story, digest

pytestmark = pytest.mark.anyio


@pytest.fixture
def story() -> Story:
    return Story()


async def test_a_run_with_its_stages_and_checks(story: Story) -> None:
    await story.begin("r1")
    await story.tell("stage.started", "r1", stage="commit")
    story.at(0.01)
    common = {"stage": "commit", "cached": True, "summary": "ok"}
    await story.tell("check.finished", "r1", **common, check="lint", result="passed", seconds=2.5)
    await story.tell("stage.finished", "r1", **common, result="passed", seconds=36)
    await story.release("v1", run="r1")
    rollout = await story.roll_out("v1", environment="staging", run="r1")
    await story.end("r1")
    run = await story.ledger.run("r1")
    assert run is not None
    assert (run.state, run.result, run.seconds) == ("passed", "passed", 1)
    (stage,) = run.stages
    assert (stage.name, stage.state, stage.seconds, stage.cached) == ("commit", "passed", 36, True)
    assert [check.name for check in stage.checks] == ["lint"]
    assert [release["version"] for release in run.releases] == ["v1"]
    assert run.rollouts == (rollout,)


async def test_a_run_is_running_while_it_is_heard_of_and_never_passed_without_its_end(
    story: Story,
) -> None:
    await story.begin("r1")
    await story.tell("stage.started", "r1", stage="commit")
    run = await story.at(0.5).ledger.run("r1")
    assert run is not None
    assert (run.state, run.stages[0].state, run.result) == ("running", "running", None)
    run = await story.at(2).ledger.run("r1")
    assert run is not None
    assert (run.state, run.stages[0].state, run.result) == ("unfinished", "unfinished", None)


async def test_a_stage_without_its_end_in_an_ended_run_is_unfinished(story: Story) -> None:
    await story.begin("r1")
    await story.tell("stage.started", "r1", stage="commit")
    await story.end("r1", "interrupted")
    run = await story.ledger.run("r1")
    assert run is not None
    assert (run.state, run.stages[0].state) == ("interrupted", "unfinished")


async def test_a_rollout_is_running_only_while_its_run_lives(story: Story) -> None:
    await story.begin("r1")
    rollout = await story.roll_out("v1", result=None, run="r1")
    await story.at(0.9).tell("stage.started", "r1", stage="other")

    async def state() -> str:
        found = await story.ledger.rollout(rollout)
        assert found is not None
        return found.state

    assert await state() == "running"
    story.at(1.5)
    assert await state() == "running"
    story.at(3)
    assert await state() == "unfinished"
    story.at(0.9)
    await story.end("r1", "interrupted")
    assert await state() == "unfinished"


async def test_steps_are_in_their_order(story: Story) -> None:
    rollout = await story.roll_out("v1", result=None)
    for percent in (10, 50, 100):
        await story.tell(
            "rollout.step",
            rollout=rollout,
            environment="production",
            step="shifted",
            data={"percent": percent},
        )
    found = await story.ledger.rollout(rollout)
    assert found is not None
    assert [step.data["percent"] for step in found.steps] == [10, 50, 100]


async def test_unknown_ids_are_none(story: Story) -> None:
    assert await story.ledger.run("nope") is None
    assert await story.ledger.rollout("nope") is None
    assert await story.ledger.release("nope") is None
    assert await story.ledger.current("nope") is None


async def test_a_release_is_found_by_version_and_by_digest(story: Story) -> None:
    await story.release("v1")
    await story.at(1).release("v1")
    await story.release("v2")
    assert [release["version"] for release in await story.ledger.releases()] == ["v2", "v1"]
    first = await story.ledger.release("v1")
    assert first is not None
    assert first["created"].startswith("2026-01-01T00:00")
    assert await story.ledger.release(digest("v1")) == first


async def test_a_release_cut_elsewhere_keeps_the_time_when_it_was_cut(ledger: Ledger) -> None:
    """The signed record has that time, and a release that differs from its record is refused."""
    cut = "2026-01-01T00:00:00+00:00"
    data = {
        "version": "v1",
        "revision": "1" * 40,
        "digest": digest("v1"),
        "repository": "registry.test/app",
        "configuration": digest("configuration"),
        "committed_at": cut,
        "created": cut,
    }
    await ledger.append("release.created", run="run", data=data)
    found = await ledger.release("v1")
    assert found is not None
    assert found["created"] == cut


async def test_pages_of_runs_and_rollouts_follow_each_other(path: Path, ledger: Ledger) -> None:
    story = Story()
    story.ledger = ledger
    for n in range(7):
        await story.begin(f"r{n}")
        await story.roll_out(f"v{n}", run=f"r{n}")
    runs = [run.id for page in range(4) for run in await ledger.runs(2, offset=2 * page)]
    assert runs == [f"r{n}" for n in reversed(range(7))]
    rollouts = [
        rollout.version
        for page in range(3)
        for rollout in await ledger.rollouts("production", 3, offset=3 * page)
    ]
    assert rollouts == [f"v{n}" for n in reversed(range(7))]
    assert await ledger.rollouts("staging") == []
    assert await ledger.environments() == ["production"]


outcomes = st.sampled_from(["succeeded", "rolled-back", "failed", None])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["staging", "production"]),
            st.sampled_from("abc"),
            outcomes,
            st.sampled_from(["deploy", "rollback"]),
        )
    )
)
def test_current_is_the_last_success(told: list[tuple[str, str, str | None, str]]) -> None:
    async def main() -> None:
        story = Story()
        expected: dict[str, str] = {}
        for environment, name, result, reason in told:
            rollout = await story.roll_out(name, result, environment=environment, reason=reason)
            if result == "succeeded":
                expected[environment] = rollout
            for each in ("staging", "production"):
                current = await story.ledger.current(each)
                assert (current.id if current else None) == expected.get(each)
                assert current is None or current.running_digest == current.digest

    anyio.run(main)


async def test_a_later_word_on_the_same_rollout_is_the_valid_one(story: Story) -> None:
    first = await story.roll_out("v1")
    second = await story.roll_out("v2")
    await story.tell(
        "rollout.finished",
        rollout=second,
        environment="production",
        result="failed",
        digest=digest("v1"),
        seconds=9,
        cause="the container died",
    )
    current = await story.ledger.current("production")
    assert current is not None
    assert current.id == first
