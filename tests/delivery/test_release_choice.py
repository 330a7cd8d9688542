"""Which release a rollback goes to, and who has approved what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.config import EnvironmentConfig
from buildonce.config.approvals import ApprovalConfig
from buildonce.delivery import ApprovalRefused, UnknownRelease, previous_good
from buildonce.delivery.approval import approval_standing, decide, wait_for_approval
from buildonce.delivery.naming import known_release
from buildonce.delivery.options import Options
from buildonce.delivery.statements import find_signer
from buildonce.ledger import Ledger, new_run_id
from tests.samples import release

from .conftest import record

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
    assert (await previous_good("production", ledger=ledger)).release.image == release("2").image


async def test_a_second_rollback_goes_further_back_and_not_forth(ledger: Ledger) -> None:
    await rolled_out(ledger, "1")
    await rolled_out(ledger, "2", before="1")
    await rolled_out(ledger, "3", before="2")
    await rolled_out(ledger, "2", before="3", reason="rollback")
    assert (await previous_good("production", ledger=ledger)).release.version == "1"
    await rolled_out(ledger, "1", before="2", reason="rollback")
    with pytest.raises(UnknownRelease, match="no earlier good release of production"):
        await previous_good("production", ledger=ledger)
    # Deployed with success again, it is good again.
    await rolled_out(ledger, "3", before="1")
    await rolled_out(ledger, "4", before="3")
    assert (await previous_good("production", ledger=ledger)).release.version == "3"


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


def options(ledger: Ledger, said: list[str] | None = None, **more: Any) -> Options:
    tell = said.append if said is not None else lambda _: None
    return Options(project="shop", ledger=ledger, run=new_run_id(), progress=tell, **more)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDONCE_HOME", str(tmp_path / "home"))


async def word(
    ledger: Ledger,
    version: str,
    who: str,
    *,
    given: bool = True,
    place: EnvironmentConfig = PRODUCTION,
    reason: str | None = None,
) -> None:
    signer = find_signer({}, key=None, user=who)
    await decide(
        release(version), place, given=given, signer=signer, options=options(ledger), reason=reason
    )


async def test_an_approval_counts_for_its_digest_and_environment_only(ledger: Ledger) -> None:
    await word(ledger, "2", "ann")
    await word(ledger, "1", "ann", place=EnvironmentConfig(name="staging", port=2))
    said: list[str] = []
    with anyio.move_on_after(0.3) as scope:
        await wait_for_approval(release("1"), PRODUCTION, options=options(ledger, said))
    assert scope.cancelled_caught
    assert len(said) == 1
    assert "`buildonce approve production --release 1`" in said[0]


async def test_an_approval_given_while_waiting_ends_the_wait(ledger: Ledger) -> None:
    said: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: wait_for_approval(release("1"), PRODUCTION, options=options(ledger, said))
        )
        await anyio.sleep(0.1)
        await word(ledger, "1", "ann")
        with anyio.fail_after(60):
            while len(said) < 2:
                await anyio.sleep(0.05)
    assert said[1] == "production: ann approved 1"


async def test_the_newest_word_of_a_person_counts(ledger: Ledger) -> None:
    await word(ledger, "1", "bob")
    await word(ledger, "1", "bob", given=False, reason="too soon")
    with pytest.raises(ApprovalRefused, match="bob refused 1 for production: too soon") as refused:
        await wait_for_approval(release("1"), PRODUCTION, options=options(ledger))
    assert refused.value.exit_code == 4
    await word(ledger, "1", "bob")
    assert not await wait_for_approval(release("1"), PRODUCTION, options=options(ledger))


async def test_a_word_that_is_not_signed_counts_for_nothing(ledger: Ledger) -> None:
    data = {
        "environment": "production",
        "actor": "ann",
        "version": "1",
        "digest": release("1").image.digest,
    }
    await ledger.append("approval.given", run=new_run_id(), data=data)
    await word(ledger, "2", "bob")
    (event,) = [e for e in await ledger.events(kinds=["approval.given"]) if "envelope" in e.data]
    moved = {**event.data, "digest": release("1").image.digest}  # a signature of another digest
    await ledger.append("approval.given", run=new_run_id(), data=moved)
    standing = await approval_standing(release("1"), PRODUCTION, options(ledger))
    assert standing.yes == ()
    assert any("is not signed" in why for why in standing.ignored)
    assert any("for something else" in why for why in standing.ignored)


async def test_a_quorum_wants_different_people_and_not_who_deploys(ledger: Ledger) -> None:
    place = PRODUCTION.model_copy(
        update={"approval": ApprovalConfig(quorum=2, self_approval=False)}
    )
    for who in ("ann", "ann", "bob"):
        await word(ledger, "1", who, place=place)
    by_bob = await approval_standing(release("1"), place, options(ledger, actor="bob"))
    assert [one.actor for one in by_bob.yes] == ["ann"]
    by_carol = await approval_standing(release("1"), place, options(ledger, actor="carol"))
    assert sorted(one.actor for one in by_carol.yes) == ["ann", "bob"]
