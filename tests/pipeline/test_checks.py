from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import dagger
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.config import Config, ConfigError
from buildonce.errors import BuildonceError, ExitCode
from buildonce.pipeline import CheckBroken, CheckDenied, CheckFailed
from buildonce.release.errors import Refusal
from buildonce.stages import Check, Failure

from .conftest import CONFIG, Told

pytestmark = pytest.mark.anyio

FAILURE = Failure("tests/test_a.py::test_b", "one is not two", "tests/test_a.py", 3)


async def passes(seconds: float = 0) -> Check:
    await anyio.sleep(seconds)
    return Check("passes", True, "3 tests passed")


async def fails(seconds: float = 0) -> Check:
    await anyio.sleep(seconds)
    return Check("fails", False, "1 of 3 tests failed", (FAILURE,))


async def breaks() -> Check:
    raise BuildonceError("the registry is full", remedy="empty it")


async def number() -> int:
    return 42


async def test_results_are_there_behind_the_gate(told: Told) -> None:
    async with told.parallel() as checks:
        check = checks.start(passes, 0.01)
        answer = checks.start(number)
    assert (await check).summary == "3 tests passed"
    assert await answer == 42
    assert told.results == {"passes": "passed", "number": "passed"}
    assert [kind for kind, _ in told.events] == ["check.finished"] * 2


async def test_they_run_at_the_same_time(told: Told) -> None:
    met = anyio.Event(), anyio.Event()

    async def one() -> None:
        met[0].set()
        await met[1].wait()

    async def other() -> None:
        met[1].set()
        await met[0].wait()

    with anyio.fail_after(30):
        async with told.parallel() as checks:
            checks.start(one)
            checks.start(other)


async def test_all_failures_are_told_and_all_run_to_their_end(told: Told) -> None:
    with pytest.raises(CheckFailed) as raised:
        async with told.parallel() as checks:
            checks.start(fails)
            checks.start(breaks)
            checks.start(passes, 0.05)
    assert told.results == {"fails": "failed", "breaks": "broken", "passes": "passed"}
    assert [check.name for check in raised.value.checks] == ["fails", "breaks"]
    assert raised.value.exit_code == ExitCode.CHECK_FAILED
    assert told.check("fails").failures == (FAILURE,)
    assert told.check("breaks").remedy == "empty it"


async def test_when_none_failed_but_one_broke_the_tool_is_to_blame(told: Told) -> None:
    with pytest.raises(CheckBroken) as raised:
        async with told.parallel() as checks:
            checks.start(breaks)
            checks.start(passes)
    assert raised.value.exit_code == ExitCode.TOOL_FAILED


async def test_what_is_not_to_be_believed_is_a_denial_whatever_else_failed(told: Told) -> None:
    async def denies() -> None:
        raise Refusal("evidence is missing", remedy="find out who removed it")

    with pytest.raises(CheckDenied) as raised:
        async with told.parallel() as checks:
            checks.start(fails)
            checks.start(denies)
            checks.start(breaks)
    assert raised.value.exit_code == ExitCode.POLICY_DENIED
    assert told.check("denies").remedy == "find out who removed it"


async def test_fail_fast_ends_the_others(told: Told) -> None:
    with anyio.fail_after(30), pytest.raises(CheckFailed):
        async with told.parallel() as checks:
            checks.start(passes, 60)
            checks.fail_fast(fails, 0.01)
            await anyio.sleep(60)
    assert told.results == {"passes": "cancelled", "fails": "failed"}
    results = {data["check"]: data["result"] for _, data in told.events}
    assert results == {"passes": "cancelled", "fails": "failed"}


async def test_an_error_of_the_body_ends_the_checks_and_is_raised_as_it_is(told: Told) -> None:
    with anyio.fail_after(30), pytest.raises(ZeroDivisionError):
        async with told.parallel() as checks:
            checks.start(passes, 60)
            await anyio.sleep(0.01)
            raise ZeroDivisionError
    assert told.results == {"passes": "cancelled"}


async def test_awaiting_what_broke_does_not_hide_the_gate(told: Told) -> None:
    with pytest.raises(CheckFailed) as raised:
        async with told.parallel() as checks:
            checks.start(fails, 0.05)
            await checks.start(breaks)
    assert [check.name for check in raised.value.checks] == ["fails", "breaks"]


async def test_a_container_command_that_fails_is_a_failed_check(told: Told) -> None:
    class Refused(dagger.ExecError):
        def __new__(cls) -> Refused:
            return Exception.__new__(cls)

        def __init__(self) -> None:
            self.command, self.exit_code = ["pip", "install"], 2
            self.stdout, self.stderr = "", "line 1\nERROR: no such thing"

        def __str__(self) -> str:
            return "Refused"

    async def build() -> None:
        raise Refused

    with pytest.raises(CheckFailed):
        async with told.parallel() as checks:
            checks.start(build)
    record = told.check("build")
    assert record.result == "failed"
    assert "`pip install` failed in a container with exit code 2" in record.summary
    assert record.details == ("line 1", "ERROR: no such thing")


async def test_cached_is_what_ran_before_this_run(told: Told) -> None:
    async def at(name: str, offset: float) -> Check:
        moment = told.journal.started + timedelta(seconds=offset)
        return Check(name, True, "", ran_at=moment.astimezone(UTC))

    async def before() -> Check:
        return await at("before", -1)

    async def now() -> Check:
        return await at("now", 1)

    async with told.parallel() as checks:
        checks.start(before)
        checks.start(now)
        checks.start(number)
    assert [check.cached for check in told.stage.checks] == [True, False, None]
    assert not told.stage.cached


async def test_reports_are_kept_also_of_a_failed_check(told: Told) -> None:
    @dataclass
    class File:
        text: str

        async def export(self, path: str) -> str:
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text(self.text)
            return path

    async def reports() -> Check:
        files: Mapping[str, object] = {"junit.xml": File("<x/>"), "coverage.xml": File("c")}
        return Check("reports", False, "failed", (FAILURE,), files)  # type: ignore[arg-type]

    with pytest.raises(CheckFailed):
        async with told.parallel() as checks:
            checks.start(reports)
    assert told.check("reports").files == ("out/reports/junit.xml", "out/reports/coverage.xml")
    assert (told.root / "out/reports/junit.xml").read_text() == "<x/>"


async def test_the_same_check_twice_has_two_names(told: Told) -> None:
    async with told.parallel() as checks:
        checks.start(passes)
        checks.start(passes)
    assert list(told.results) == ["passes", "passes-2"]


async def configured(*, limit: int = 1, words: Sequence[str] = ()) -> Check:
    return Check("configured", True, f"{limit} {list(words)}")


async def test_options_come_from_the_configuration_unless_given(told: Told) -> None:
    async with told.parallel() as checks:
        first = checks.start(configured)
        second = checks.start(configured, limit=3)
    assert (await first).summary == "7 []"
    assert (await second).summary == "3 []"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("limt = 7", "ci/pipeline.toml:6: checks.configured.limt: configured has no such option; "
         "did you mean 'limit'?"),
        ('limit = "many"', "ci/pipeline.toml:6: checks.configured.limit: Input should be a valid"),
        ("words = 3", "ci/pipeline.toml:6: checks.configured.words: "),
        ("x = 3", "it takes: limit, words"),
    ],
)  # fmt: skip
async def test_a_wrong_option_is_told_with_its_line(told: Told, line: str, message: str) -> None:
    told.config = Config.parse(CONFIG.replace("limit = 7", line), path=Path("ci/pipeline.toml"))
    with pytest.raises(ConfigError) as raised:
        async with told.parallel() as checks:
            checks.start(configured)
    assert message in raised.value.message


outcomes = st.lists(
    st.tuples(
        st.sampled_from(["passed", "failed", "broken"]),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=8,
)


@given(outcomes)
@settings(max_examples=60, deadline=None)
def test_the_gate_opens_exactly_when_all_passed(plan: list[tuple[str, int, bool]]) -> None:
    """Whatever ends when and how, fail-fast or not: the records, the gate and the ledger agree."""

    async def run(told: Told) -> None:
        async def step(outcome: str, ticks: int) -> Check:
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            if outcome == "broken":
                raise BuildonceError("broken")
            return Check("step", outcome == "passed", outcome)

        error: CheckFailed | None = None
        try:
            async with told.parallel() as checks:
                for outcome, ticks, hasty in plan:
                    (checks.fail_fast if hasty else checks.start)(step, outcome, ticks)
        except CheckFailed as raised:
            error = raised
        wanted = [outcome for outcome, _, _ in plan]
        found = [str(check.result) for check in told.stage.checks]
        assert len(found) == len(wanted)
        hasty_failure = any(hasty and outcome != "passed" for outcome, _, hasty in plan)
        for want, got in zip(wanted, found, strict=True):
            assert got == want or (hasty_failure and got == "cancelled")
        assert (error is None) == all(outcome == "passed" for outcome in wanted)
        if error is not None:
            assert {str(check.result) for check in error.checks} <= {"failed", "broken"}
            failed = any(check.result == "failed" for check in error.checks)
            assert error.exit_code == (ExitCode.CHECK_FAILED if failed else ExitCode.TOOL_FAILED)
        assert len(told.events) == len(plan)

    with tempfile.TemporaryDirectory() as folder:
        config = Config.parse(CONFIG, path=Path("p.toml"))
        anyio.run(run, Told(Path(folder), config))


async def test_a_check_that_never_ran_is_cancelled_in_the_ledger_too(told: Told) -> None:
    with anyio.CancelScope() as scope:
        async with told.parallel() as checks:
            checks.start(passes, 60)
            await anyio.sleep(0.01)
            scope.cancel()
    assert scope.cancelled_caught
    assert [data["result"] for _, data in told.events] == ["cancelled"]
    assert datetime.now(UTC) - told.journal.started < timedelta(seconds=30)


async def doubled(*numbers: int, more: Sequence[int] = ()) -> list[int]:
    return [2 * number for number in (*numbers, *more)]


async def test_a_check_begins_when_those_it_needs_have_ended(told: Told) -> None:
    async with told.parallel() as checks:
        answer = checks.start(number)
        twice = checks.start(doubled, answer, 1, more=[answer, 2])
        again = checks.start(passes, 0)
    assert await twice == [84, 2, 84, 4]
    assert told.check("doubled").after == ("number",)
    assert again.record.after == ()


@pytest.mark.parametrize(("needed", "how"), [(fails, "failed"), (breaks, "broken")])
async def test_what_needs_a_failing_one_is_not_begun(
    told: Told, needed: Callable[[], Awaitable[object]], how: str
) -> None:
    begun: list[object] = []

    async def dependent(value: object) -> None:
        begun.append(value)

    async def further(value: object) -> None:
        begun.append(value)

    with pytest.raises(CheckFailed) as raised:
        async with told.parallel() as checks:
            first = checks.start(needed)
            second = checks.start(dependent, [first])
            checks.start(further, second)
    assert begun == []
    assert told.results == {needed.__name__: how, "dependent": "cancelled", "further": "cancelled"}
    assert told.check("dependent").summary == f"not begun: {needed.__name__} {how}"
    # Only what failed by itself shut the gate.
    assert [check.name for check in raised.value.checks] == [needed.__name__]


async def test_the_wait_is_not_counted(told: Told) -> None:
    async with told.parallel() as checks:
        slow = checks.start(passes, 0.3)
        checks.start(_ignores, slow)
    assert told.check("passes").seconds >= 0.3
    assert told.check("_ignores").seconds < 0.2


async def _ignores(_value: object) -> None:
    pass
