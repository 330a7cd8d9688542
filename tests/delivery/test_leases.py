"""The laws of leases, for both places where they are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildonce.config import Config, ConfigError
from buildonce.delivery import EnvironmentBusy
from buildonce.delivery.aws.lease_dynamodb import DynamoLeases
from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.lease import LeaseLost
from buildonce.delivery.lease_holding import Busy
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.targets import open_leases
from tests.aws.clock import SimulatedClock
from tests.aws.faults import Fault, Process

from .leases import TERM, Dynamo, Machine, Sqlite

pytestmark = pytest.mark.anyio

Kept = Sqlite | Dynamo
_names = (f"environment-{number}" for number in count())


@pytest.fixture(params=["sqlite", "dynamodb"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    if request.param == "sqlite":
        yield Sqlite(tmp_path)
        return
    table = Dynamo()
    await table.make()
    yield table
    await table.remove()


@pytest.fixture
async def dynamo() -> AsyncIterator[Dynamo]:
    table = Dynamo()
    await table.make()
    yield table
    await table.remove()


class Model:
    """What three processes do to one lease, compared with what must never be."""

    def __init__(self, kept: Kept, wrong: tuple[int, int, int]) -> None:
        self.kept, self.time = kept, SimulatedClock()
        self.environment = next(_names)
        machines = [Machine(self.time, timedelta(seconds=one)) for one in wrong]
        self.leases = [kept.process(machine) for machine in machines]
        self.has: list[Any] = [None, None, None]
        self.renewed = [0.0, 0.0, 0.0]
        self.tokens = [0]

    async def do(self, action: str, who: int, seconds: int) -> None:
        lease = self.has[who]
        if action == "pass":
            self.time.advance(seconds)
        elif action == "take" and lease is None:
            await self._take(who)
        elif action == "check" and lease is not None:
            await self._check(who)
        elif action == "release" and lease is not None:
            await lease.release()
            self.has[who] = None
        elif action == "crash" and lease is not None:
            self.kept.crash(lease)
            self.has[who] = None

    async def _take(self, who: int) -> None:
        found = await self.leases[who].take(self.environment, f"run-{who}")
        newest = max(
            (w for w, lease in enumerate(self.has) if lease is not None),
            key=lambda w: self.has[w].token,
            default=None,
        )
        if isinstance(found, Busy):
            assert "run-" in found.holder
            return
        assert found.token > self.tokens[-1], "the fence must grow"
        if newest is not None and self.has[newest].token == self.tokens[-1]:
            # By no clock may a lease be taken that was renewed within its term.
            silent = self.time.monotonic() - self.renewed[newest]
            # (One that was written a moment ago is not written again: a tenth of the term.)
            assert silent >= 0.9 * TERM.total_seconds(), f"taken after {silent} s from who holds it"
        self.tokens.append(found.token)
        self.has[who], self.renewed[who] = found, self.time.monotonic()

    async def _check(self, who: int) -> None:
        newest = self.has[who].token == self.tokens[-1]
        try:
            await self.has[who].check()
        except LeaseLost:
            assert not newest, "nobody else took it"
        else:
            assert newest, "two hold it"
            self.renewed[who] = self.time.monotonic()

    async def end(self) -> None:
        """Whoever waits gets it in the end, whatever was left behind."""
        for who, lease in enumerate(self.has):
            if lease is not None:
                self.kept.crash(lease)
                self.has[who] = None
        # Two clocks may be 580 s apart; then comes a term by the one, and one of silence.
        for _ in range(70):
            found = await self.leases[0].take(self.environment, "run-last")
            if not isinstance(found, Busy):
                assert found.token > self.tokens[-1]
                await found.release()
                assert await self.leases[1].holder(self.environment) is None
                return
            self.time.advance(10)
        raise AssertionError("a dead holder's lease never ends")


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "check", "check", "pass", "pass", "release", "crash"]),
        st.integers(0, 2),
        st.sampled_from([1, 5, 16, 29, 31, 61]),
    ),
    max_size=25,
)
_law = settings(
    max_examples=int(os.environ.get("BUILDONCE_FAULTS", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@_law
@given(actions=_ACTIONS)
async def test_never_two_holders_and_tokens_grow(
    kept: Kept, actions: list[tuple[str, int, int]]
) -> None:
    model = Model(kept, (0, 0, 0))
    for action in actions:
        await model.do(*action)
    await model.end()


@_law
@given(actions=_ACTIONS, wrong=st.tuples(*[st.sampled_from([-290, -40, 0, 40, 290])] * 3))
async def test_clocks_that_are_wrong_let_nobody_in_too_early(
    dynamo: Dynamo, actions: list[tuple[str, int, int]], wrong: tuple[int, int, int]
) -> None:
    """AWS refuses requests of a clock that is five minutes off; up to there, all holds."""
    model = Model(dynamo, wrong)
    for action in actions:
        await model.do(*action)
    await model.end()


async def test_of_twenty_at_once_one_gets_it(kept: Kept) -> None:
    time, environment, got = SimulatedClock(), next(_names), []

    async def take(number: int) -> None:
        found = await kept.process(time).take(environment, f"run-{number}")
        if not isinstance(found, Busy):
            got.append(found.token)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(take, number)
    assert got == [1]


async def test_waiting_says_for_whom_and_ends_with_the_holder(kept: Kept) -> None:
    time, said, order = SimulatedClock(), list[str](), list[str]()
    begun = anyio.Event()

    async def hold() -> None:
        async with kept.process(time).hold("staging", run="theirs"):
            begun.set()
            await time.sleep(200)  # renewed all along
            order.append("theirs ends")

    async with time.running(), anyio.create_task_group() as group:
        group.start_soon(hold)
        await begun.wait()
        with pytest.raises(EnvironmentBusy, match=r"staging .* run theirs .process ") as busy:
            async with kept.process(time).hold("staging", run="mine"):
                raise AssertionError("two hold it")
        assert "--wait" in (busy.value.remedy or "")
        async with kept.process(time).hold("staging", run="mine", wait=True, say=said.append):
            order.append("mine begins")
            assert "run mine" in (await kept.process(time).holder("staging") or "")
    assert order == ["theirs ends", "mine begins"]
    assert "run theirs" in said[0] and said[0].endswith("; waiting")
    assert [line.rpartition("; ")[2] for line in said[1:]] == [
        f"waiting for {seconds} s" for seconds in (60, 120, 180)
    ]
    assert await kept.process(time).holder("staging") is None


async def test_a_machine_that_was_stopped_hears_it_before_its_next_write(kept: Kept) -> None:
    time = SimulatedClock()
    stopped = Machine(time)
    took = list[int]()

    async with time.running(), kept.process(stopped).hold("staging", run="slow") as slow:
        await slow.check()
        stopped.stopped = anyio.Event()
        await time.sleep(35)
        async with kept.process(time).hold("staging", run="quick", wait=True) as quick:
            took.append(quick.token)
            stopped.stopped.set()
            with pytest.raises(LeaseLost, match=r"run quick .* has it; nothing more is done"):
                await slow.check()
            await quick.check()
        # And who lost it does not give back what is another's.
    assert took == [2]


async def test_what_fails_while_it_is_held_comes_out_as_it_is(kept: Kept) -> None:
    leases = kept.process(SimulatedClock())
    with pytest.raises(TargetFailed, match="the proxy is gone"):
        async with leases.hold("staging", run="mine"):
            raise TargetFailed("the proxy is gone")
    assert await leases.holder("staging") is None


async def test_who_loses_it_does_not_release_the_next_holders(kept: Kept) -> None:
    time = SimulatedClock()
    first = await kept.process(time).take("staging", "first")
    second_process = kept.process(time)
    while isinstance(second := await second_process.take("staging", "second"), Busy):
        time.advance(10)
    await first.release()  # type: ignore[union-attr]
    assert "run second" in (await kept.process(time).holder("staging") or "")
    await second.check()


async def test_a_table_that_does_not_answer_ends_a_lease_with_its_time(dynamo: Dynamo) -> None:
    time = SimulatedClock()
    process = Process()
    lease = await dynamo.process(time, process).take("staging", "mine")
    assert not isinstance(lease, Busy)
    process.fault = Fault("stall", at=len(process.calls))
    time.advance(20)
    await lease.check()  # still within its term
    time.advance(11)
    with pytest.raises(LeaseLost, match="could not be renewed in time: dynamodb did not answer"):
        await lease.check()


async def test_an_answer_that_is_lost_changes_nothing(dynamo: Dynamo) -> None:
    """DynamoDB did what it was asked, the answer never came, and botocore asked again."""
    time = SimulatedClock()
    process = Process()
    leases = dynamo.process(time, process)
    await leases.holder("staging")
    process.fault = Fault("timeout after", at=len(process.calls) + 1)
    lease = await leases.take("staging", "mine")
    assert process.fault.hit == "dynamodb.UpdateItem"
    assert not isinstance(lease, Busy), lease
    time.advance(10)
    process.fault = Fault("timeout after", at=len(process.calls))
    await lease.check()
    assert process.fault.hit == "dynamodb.UpdateItem"
    assert lease.token == 1


async def test_a_lease_that_was_just_written_is_not_written_again(dynamo: Dynamo) -> None:
    time, process = SimulatedClock(), Process()
    lease = await dynamo.process(time, process).take("staging", "mine")
    assert not isinstance(lease, Busy)
    before = len(process.calls)
    for _ in range(10):
        await lease.check()
    assert len(process.calls) == before
    time.advance(4)
    await lease.check()
    assert process.calls[before:] == ["dynamodb.UpdateItem"]


async def test_projects_share_a_table_and_no_lease(dynamo: Dynamo) -> None:
    time = SimulatedClock()
    mine, theirs = dynamo.process(time), dynamo.process(time)
    theirs.project = "other"
    assert not isinstance(await mine.take("staging", "mine"), Busy)
    assert not isinstance(await theirs.take("staging", "theirs"), Busy)


HOLD = """
import sys, anyio
from datetime import timedelta
from pathlib import Path
from buildonce.delivery.lease_sqlite import SqliteLeases
async def main():
    leases = SqliteLeases(Path(sys.argv[1]), term=timedelta(seconds=float(sys.argv[2])))
    async with leases.hold("staging", run="theirs") as lease:
        print("held", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        try:
            await lease.check()
            print("still mine", flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)
anyio.run(main)
"""


def hold(folder: Path, term: float = 30) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(term)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


async def test_kill_9_of_a_holder_on_this_machine_is_noticed_at_once(tmp_path: Path) -> None:
    process, leases = hold(tmp_path), SqliteLeases(tmp_path)
    with pytest.raises(EnvironmentBusy, match=f"run theirs .process {process.pid}, since"):
        async with leases.hold("staging", run="mine"):
            raise AssertionError("two hold it")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert await leases.holder("staging") is None
    async with leases.hold("staging", run="mine") as lease:
        assert lease.token == 2
        assert "run mine" in (await leases.holder("staging") or "")


async def test_a_process_that_is_stopped_loses_it(tmp_path: Path) -> None:
    process = hold(tmp_path, term=0.2)
    leases = SqliteLeases(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        async with leases.hold("staging", run="mine", wait=True) as lease:
            assert lease.token == 2
            os.kill(process.pid, signal.SIGCONT)
            out, _ = await anyio.to_thread.run_sync(lambda: process.communicate("\n"))
            assert out == "LeaseLost\n"
            await lease.check()
    finally:
        process.kill()


async def test_looking_who_holds_it_does_not_make_it_busy(tmp_path: Path) -> None:
    leases = SqliteLeases(tmp_path)

    async def look() -> None:
        for _ in range(100):
            await leases.holder("staging")

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        for _ in range(40):
            async with leases.hold("staging", run="mine"):
                await anyio.lowlevel.checkpoint()


CONFIG = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"
[accounts.tools]
id = "999999999999"
[accounts.production]
id = "222222222222"
[leases]
account = "{account}"
region = "eu-west-1"
role = "shop-leases"
[environments.staging]
port = 8102
[environments.production]
target = "ecs"
account = "production"
region = "us-east-1"
role = "shop-deploy"
"""


async def test_what_is_in_accounts_has_its_leases_in_the_teams_table(tmp_path: Path) -> None:
    config = Config.parse(CONFIG.format(account="tools"), path=Path("pipeline.toml"))
    local = open_leases(config.environments["staging"], project="shop", home=tmp_path)
    assert isinstance(local, SqliteLeases)
    shared = open_leases(config.environments["production"], project="shop", home=tmp_path)
    assert isinstance(shared, DynamoLeases)
    assert (shared.table, shared.project) == ("buildonce-leases", "shop")


async def test_leases_in_an_account_that_is_not_configured() -> None:
    with pytest.raises(ConfigError, match="there is no account 'tool'; did you mean 'tools'"):
        Config.parse(CONFIG.format(account="tool"), path=Path("pipeline.toml"))
