"""Which release a rollback goes to, and who has approved what."""

from __future__ import annotations

import anyio
import pytest

from buildonce.config import EnvironmentConfig
from buildonce.delivery import ApprovalRefused, UnknownRelease, previous_good
from buildonce.delivery.approval import decide, wait_for_approval
from buildonce.delivery.rollback import known_release
from buildonce.ledger import Ledger, new_run_id

from .conftest import record, release

pytestmark = pytest.mark.anyio

PRODUCTION = EnvironmentConfig(name="production", port=1, approval=True)


async def rolled_out(
    ledger: Ledger,
    version: str,
    *,
    before: str | None = None,
    reason: str = "deploy",
    result: str = "succeeded",
    environment: str = "production",
) -> None:
    what, run, rollout = release(version), new_run_id(), new_run_id()
    await record(what, ledger)
    data = {"rollout": rollout, "environment": environment}
    started = {
        "version": version,
        "revision": what.revision,
        "digest": what.image.digest,
        "previous_digest": release(before).image.digest if before else None,
        "reason": reason,
    }
    await ledger.append("rollout.started", run=run, data={**data, **started})
    finished = {"result": result, "digest": what.image.digest, "seconds": 1.0, "cause": None}
    await ledger.append("rollout.finished", run=run, data={**data, **finished})


async def test_rollback_goes_to_the_last_release_that_succeeded(ledger: Ledger) -> None:
    await rolled_out(ledger, "1")
    await rolled_out(ledger, "2", before="1")
    await rolled_out(ledger, "3", before="2", result="rolled-back")
    await rolled_out(ledger, "4", before="2", environment="staging")
    await rolled_out(ledger, "5", before="2")
    assert (await previous_good("production", ledger=ledger)).image == release("2").image


async def test_a_second_rollback_goes_further_back_and_not_forth(ledger: Ledger) -> None:
    await rolled_out(ledger, "1")
    await rolled_out(ledger, "2", before="1")
    await rolled_out(ledger, "3", before="2")
    await rolled_out(ledger, "2", before="3", reason="rollback")
    assert (await previous_good("production", ledger=ledger)).version == "1"
    await rolled_out(ledger, "1", before="2", reason="rollback")
    with pytest.raises(UnknownRelease, match="no earlier good release of production"):
        await previous_good("production", ledger=ledger)
    # Deployed with success again, it is good again.
    await rolled_out(ledger, "3", before="1")
    await rolled_out(ledger, "4", before="3")
    assert (await previous_good("production", ledger=ledger)).version == "3"


async def test_a_release_is_known_by_version_or_digest(ledger: Ledger) -> None:
    with pytest.raises(UnknownRelease, match="no release yet"):
        await known_release(None, ledger=ledger)
    await record(release("1"), ledger)
    await record(release("2"), ledger)
    assert (await known_release("1", ledger=ledger)).image == release("1").image
    by_digest = await known_release(release("1").image.digest, ledger=ledger)
    assert (by_digest.version, by_digest.image) == ("1", release("1").image)
    assert (await known_release(None, ledger=ledger)).version == "2"
    with pytest.raises(UnknownRelease, match="no release '9'"):
        await known_release("9", ledger=ledger)


async def test_an_approval_counts_for_its_digest_and_environment_only(ledger: Ledger) -> None:
    run = new_run_id()
    for version, environment in (("2", "production"), ("1", "staging")):
        await decide(release(version), environment, given=True, actor="ann", ledger=ledger, run=run)
    said: list[str] = []
    with anyio.move_on_after(0.2) as scope:
        await wait_for_approval(release("1"), PRODUCTION, ledger=ledger, say=said.append)
    assert scope.cancelled_caught
    assert len(said) == 1
    assert "`buildonce approve production --release 1`" in said[0]


async def test_an_approval_given_while_waiting_ends_the_wait(ledger: Ledger) -> None:
    said: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: wait_for_approval(release("1"), PRODUCTION, ledger=ledger, say=said.append)
        )
        await anyio.sleep(0.1)
        await decide(
            release("1"), "production", given=True, actor="ann", ledger=ledger, run=new_run_id()
        )
        with anyio.fail_after(3):
            while len(said) < 2:
                await anyio.sleep(0.05)
    assert said[1] == "production: ann approved 1"


async def test_the_newest_word_counts(ledger: Ledger) -> None:
    for given in (True, False):
        await decide(
            release("1"),
            "production",
            given=given,
            actor="bob",
            ledger=ledger,
            run=new_run_id(),
            reason=None if given else "too soon",
        )
    with pytest.raises(ApprovalRefused, match="bob refused 1 for production: too soon") as refused:
        await wait_for_approval(release("1"), PRODUCTION, ledger=ledger, say=lambda _: None)
    assert refused.value.exit_code == 4
