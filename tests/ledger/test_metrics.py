"""The definitions of the metrics, by example and by the laws that hold for any history."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.ledger import Metrics

from .memory import START, Story

pytestmark = pytest.mark.anyio
DAY = 24


def hours(value: float) -> timedelta:
    return timedelta(hours=value)


async def measured(story: Story, since: float = 0, until: float = 100 * DAY) -> Metrics:
    return await story.ledger.metrics(window=hours(until - since), until=START + hours(until))


@pytest.fixture
def story() -> Story:
    return Story()


async def test_without_history_there_is_no_value_rather_than_zero(story: Story) -> None:
    metrics = await measured(story)
    assert (metrics.deployments, metrics.attempts, metrics.failures) == (0, 0, 0)
    assert metrics.lead_time is None
    assert metrics.deployment_frequency is None
    assert metrics.change_failure_rate is None
    assert metrics.mtbf is None
    assert metrics.mttr is None


async def test_lead_time_is_the_mean_from_commit_to_the_first_arrival(story: Story) -> None:
    await story.release("v1", committed=0)
    await story.release("v2", committed=5)
    await story.at(2).roll_out("v1")
    await story.at(9).roll_out("v2")
    await story.at(20).roll_out("v1", reason="rollback")
    await story.at(30).roll_out("v2")
    assert (await measured(story)).lead_time == hours(3)


async def test_a_rollout_that_failed_brought_nothing_to_production(story: Story) -> None:
    await story.release("v1", committed=0)
    await story.at(1).roll_out("v1", "rolled-back")
    assert (await measured(story)).lead_time is None
    await story.at(4).roll_out("v1")
    assert (await measured(story)).lead_time == hours(4)


async def test_a_commit_of_the_future_has_no_negative_lead_time(story: Story) -> None:
    await story.release("v1", committed=3)
    await story.at(1).roll_out("v1")
    assert (await measured(story)).lead_time == timedelta()


async def test_frequency_is_deployments_per_day_of_the_window(story: Story) -> None:
    for day, name in enumerate("abcdef"):
        await story.at(day * DAY).roll_out(name)
    metrics = await measured(story, 0, 10 * DAY)
    assert metrics.deployments == 6
    assert metrics.deployment_frequency == pytest.approx(0.6)


async def test_the_same_digest_again_is_no_deployment(story: Story) -> None:
    for _ in range(3):
        await story.at(1).roll_out("a")
    assert (await measured(story)).deployments == 1


async def test_other_environments_do_not_count(story: Story) -> None:
    await story.at(1).roll_out("a", environment="staging")
    assert (await measured(story)).attempts == 0


@pytest.mark.parametrize("result", ["rolled-back", "failed"])
async def test_a_rollout_that_did_not_succeed_is_a_failed_change(story: Story, result: str) -> None:
    await story.at(1).roll_out("a")
    await story.at(2).roll_out("b", result)
    metrics = await measured(story)
    assert (metrics.deployments, metrics.attempts, metrics.failures) == (1, 2, 1)
    assert metrics.change_failure_rate == 0.5


async def test_a_later_rollback_makes_the_change_it_undid_a_failed_one(story: Story) -> None:
    await story.at(1).roll_out("a")
    await story.at(2 * DAY).roll_out("b")
    assert (await measured(story)).change_failure_rate == 0
    await story.at(3 * DAY).roll_out("a", reason="rollback")
    metrics = await measured(story)
    assert (metrics.deployments, metrics.failures, metrics.change_failure_rate) == (2, 1, 0.5)
    # The failed change is the deploy of the second day, not the rollback of the third.
    assert (await measured(story, DAY, 2.5 * DAY)).failures == 1
    assert (await measured(story, 2.5 * DAY, 4 * DAY)).attempts == 0


async def test_rollbacks_in_a_row_each_make_one_change_failed(story: Story) -> None:
    for hour, name in enumerate("abc"):
        await story.at(hour).roll_out(name)
    await story.at(10).roll_out("b", reason="rollback")
    await story.at(11).roll_out("a", reason="rollback")
    assert (await measured(story)).failures == 2


async def test_mtbf_and_mttr_are_between_starts_of_runs(story: Story) -> None:
    await story.roll_out("a", run="r0")
    for hour, result in [
        (0, "passed"),
        (10, "passed"),
        (20, "check-failed"),
        (21, "rolled-back"),
        (22, "interrupted"),
        (24, "passed"),
        (34, "tool-failed"),
        (40, "passed"),
    ]:
        await story.at(hour).begin(f"r{hour}")
        await story.at(hour + 0.5).end(f"r{hour}", result)
    metrics = await measured(story)
    assert metrics.mtbf == hours((20 + 10) / 2)
    assert metrics.mttr == hours((4 + 6) / 2)


async def test_runs_of_a_pipeline_that_never_delivers_there_do_not_count(story: Story) -> None:
    await story.roll_out("a", run="r0")
    for hour, result in [(0, "passed"), (5, "check-failed")]:
        await story.at(hour).begin(f"r{hour}")
        await story.end(f"r{hour}", result)
    await story.at(3).begin("other", "pull-request")
    await story.end("other", "check-failed")
    assert (await measured(story)).mtbf == hours(5)


events = st.one_of(
    st.tuples(
        st.just("rollout"),
        st.sampled_from("abcd"),
        st.sampled_from(["succeeded", "succeeded", "rolled-back", "failed", None]),
        st.sampled_from(["deploy", "deploy", "rollback"]),
    ),
    st.tuples(
        st.just("run"),
        st.sampled_from(["passed", "check-failed", "rolled-back", "tool-failed", "interrupted"]),
    ),
    st.tuples(st.just("release"), st.sampled_from("abcd")),
)
histories = st.lists(st.tuples(st.integers(0, 40), events), max_size=30).map(
    lambda told: sorted(told, key=lambda each: each[0])
)


async def told(history: list[tuple[int, tuple[str, ...]]]) -> Story:
    story = Story()
    await story.begin("first")
    await story.roll_out("0", run="first")
    for number, (hour, event) in enumerate(history):
        story.at(hour)
        match event:
            case ("rollout", name, result, reason):
                await story.roll_out(name, result, reason=reason)
            case ("run", result):
                await story.begin(f"run-{number}")
                await story.end(f"run-{number}", result)
            case ("release", name):
                await story.release(name, committed=hour)
    return story


@given(histories, st.integers(-1, 42), st.integers(-1, 42), st.integers(-1, 42))
def test_windows_that_follow_each_other_add_up(
    history: list[tuple[int, tuple[str, ...]]], one: int, two: int, three: int
) -> None:
    low, middle, high = sorted((one, two, three))

    async def main() -> None:
        story = await told(history)
        left = await measured(story, low, middle)
        right = await measured(story, middle, high)
        whole = await measured(story, low, high)
        for name in ("deployments", "attempts", "failures"):
            assert getattr(left, name) + getattr(right, name) == getattr(whole, name)
        for name in ("lead_time", "mtbf", "mttr"):
            parts = [getattr(left, name), getattr(right, name)]
            known = [part for part in parts if part is not None]
            mean = getattr(whole, name)
            assert (mean is None) == (not known)
            if known:
                tick = timedelta(microseconds=2)
                assert min(known) - tick <= mean <= max(known) + tick

    anyio.run(main)


@given(histories)
def test_values_stay_within_their_meaning(
    history: list[tuple[int, tuple[str, ...]]],
) -> None:
    async def main() -> None:
        metrics = await measured(await told(history), -1, 42)
        assert 0 <= metrics.failures <= metrics.attempts
        assert metrics.deployments <= metrics.attempts
        assert metrics.change_failure_rate is None or 0 <= metrics.change_failure_rate <= 1
        assert metrics.deployment_frequency is None or metrics.deployment_frequency > 0
        for interval in (metrics.lead_time, metrics.mtbf, metrics.mttr):
            assert interval is None or interval >= timedelta()

    anyio.run(main)


@given(histories, st.sampled_from("abcd"))
def test_one_more_failed_rollout_is_one_more_failure(
    history: list[tuple[int, tuple[str, ...]]], name: str
) -> None:
    async def main() -> None:
        story = await told(history)
        before = await measured(story, -1, 42)
        await story.at(41).roll_out(name, "rolled-back")
        after = await measured(story, -1, 42)
        assert after.failures == before.failures + 1
        assert after.attempts == before.attempts + 1
        assert after.deployments == before.deployments
        assert after.lead_time == before.lead_time

    anyio.run(main)
