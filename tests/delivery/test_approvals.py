"""Approvals in rollouts under way: given once, kept, withdrawn, waited for; by the test's clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.config.windows import WindowConfig
from buildonce.delivery import ApprovalRefused, RolledBack, WindowClosed
from tests.aws.clock import BEGIN
from tests.samples import release

from .company import Company, place
from .conftest import record

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = release("1"), release("2"), release("3")
PRODUCTION = [["production"]]


async def shop(folder: Path, approval: Any = True, **rollout: Any) -> Company:
    """Production runs release 1, and wants to be asked from now on."""
    company = Company(folder, [place("production", approval=approval, **rollout)])
    company.hire("ann", "bob", "carol")
    for what in (ONE, TWO, THREE):
        await record(what, company.ledger)
    company.targets["production"].active = ("first", "first")
    company.targets["production"].containers = {"first": ONE}
    return company


async def test_it_is_given_once_and_survives_a_restart_of_who_waits_for_it(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    with anyio.move_on_after(0.2) as scope:  # a pipeline that is ended while it waits
        await company.promote(TWO, PRODUCTION)
    assert scope.cancelled_caught
    waits = [line for line in company.said if "waiting for the approval" in line]
    assert len(waits) == 1 and "`buildonce approve production --release 2`" in waits[0]
    assert company.serving == company.everywhere("1")
    await company.word("ann", TWO, "production")
    company.said.clear()
    async with company.at_work():
        await company.promote(TWO, PRODUCTION)
        assert not any("waiting for the approval" in line for line in company.said)
        await company.promote(ONE, PRODUCTION, reason="rollback")  # asks nobody
        await company.promote(TWO, PRODUCTION)  # and the word is still good
    assert company.serving == company.everywhere("2")


async def test_it_says_nothing_of_the_next_digest(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    await company.word("ann", TWO, "production")
    with anyio.move_on_after(0.1) as scope:
        await company.promote(THREE, PRODUCTION)
    assert scope.cancelled_caught
    assert any("waiting for the approval of 3" in line for line in company.said)


async def test_what_is_withdrawn_while_it_is_proven_brings_the_release_back(
    tmp_path: Path,
) -> None:
    company = await shop(tmp_path)
    await company.word("ann", TWO, "production")

    async def later() -> None:
        await company.clock.sleep(90)
        await company.word("ann", TWO, "production", given=False, reason="the price list is wrong")

    async with company.at_work():
        with pytest.raises(RolledBack, match="ann refused 2: the price list is wrong") as error:
            await together(company, later)
    assert error.value.exit_code == 3
    assert company.serving == company.everywhere("1")
    assert 90 <= company.clock.monotonic() <= 96


async def together(company: Company, other: Any, **options: Any) -> None:
    """Release 2 into production while something else happens."""
    failure: list[Exception] = []

    async def promote() -> None:
        try:
            await company.promote(TWO, PRODUCTION, **options)
        except Exception as error:
            failure.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        group.start_soon(promote)
    if failure:
        raise failure[0]


@pytest.mark.parametrize(
    ("words", "waits_for"),
    [
        (["bob"], "by 2 people, bob has"),
        (["bob", "bob"], "by 2 people, bob has"),
        (["ann", "bob"], "ann made or deploys it, so that approval does not count"),
        (["bob", "carol"], None),
    ],
)
async def test_a_quorum_is_of_different_people_and_not_of_who_deploys(
    tmp_path: Path, words: list[str], waits_for: str | None
) -> None:
    company = await shop(tmp_path, {"quorum": 2, "self_approval": False})
    for who in words:
        await company.word(who, TWO, "production")
    if waits_for is None:
        async with company.at_work():
            await company.promote(TWO, PRODUCTION, actor="ann")
    with anyio.move_on_after(0.2):
        await company.promote(TWO, PRODUCTION, actor="ann")
    said = "\n".join(company.said)
    assert company.serving == company.everywhere("1" if waits_for else "2")
    assert waits_for is None or waits_for in said


async def test_it_is_good_for_as_long_as_configured(tmp_path: Path) -> None:
    company = await shop(tmp_path, {"expires": "1h"})
    await company.word("ann", TWO, "production")
    company.clock.advance(3601)

    async def again() -> None:
        await company.clock.sleep(30)
        assert any("the word of ann expired" in line for line in company.said)
        await company.word("bob", TWO, "production")

    async with company.at_work():
        await together(company, again)
    assert company.serving == company.everywhere("2")


async def test_one_no_refuses_and_the_same_person_may_decide_otherwise(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    await company.word("ann", TWO, "production")
    await company.word("bob", TWO, "production", given=False)
    async with company.at_work():
        with pytest.raises(ApprovalRefused, match="bob refused 2 for production"):
            await company.promote(TWO, PRODUCTION)
        assert await company.ledger.rollouts() == []
        await company.word("bob", TWO, "production")
        await company.promote(TWO, PRODUCTION)
    assert company.serving == company.everywhere("2")


async def test_no_budget_runs_while_a_person_is_awaited(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    periods: list[float] = []

    @contextmanager
    def awaiting() -> Iterator[None]:
        began = company.clock.monotonic()
        yield
        periods.append(company.clock.monotonic() - began)

    async def later() -> None:
        await company.clock.sleep(7200)
        await company.word("ann", TWO, "production")

    async with company.at_work():
        await together(company, later, awaiting=awaiting)
    assert periods == [7200] or periods == [7201]
    assert company.serving == company.everywhere("2")
    reminders = [line for line in company.said if "s now for the approval" in line]
    assert len(reminders) > 60, "each minute it is said for how long"


async def test_a_window_that_closed_meanwhile_is_heeded(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    night = WindowConfig(
        name="night",
        kind="deny",
        start=(BEGIN + timedelta(hours=1)).replace(tzinfo=None),
        duration=timedelta(hours=8),
    )
    company.places["production"] = company.places["production"].model_copy(
        update={"windows": (night,)}
    )

    async def later() -> None:
        await company.clock.sleep(3700)
        await company.word("ann", TWO, "production")

    async with company.at_work():
        with pytest.raises(WindowClosed, match='"night" keeps it closed until') as closed:
            await together(company, later)
        assert closed.value.exit_code == 4
        assert company.serving == company.everywhere("1")
        # Going back is possible at any time.
        await company.promote(THREE, PRODUCTION, reason="rollback")
    assert company.serving == company.everywhere("3")
