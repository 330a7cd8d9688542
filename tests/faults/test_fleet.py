"""Many environments at once: so many are changed at the same time, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buildonce.config import Config, ConfigError
from buildonce.delivery import RolledBack, SmokeFailed
from buildonce.delivery.resuming import resume
from buildonce.delivery.saying import first_failure
from buildonce.delivery.target import Candidate
from buildonce.delivery.waves import concurrency_of
from tests.aws.faults import Process
from tests.aws.rollouts import MemoryLeases
from tests.delivery.company import Company, no_smoke, place
from tests.delivery.conftest import record
from tests.delivery.memory import Killed, Power
from tests.samples import release

pytestmark = pytest.mark.anyio

NAMES = [f"region-{number}" for number in range(6)]


class Counted:
    """How many are at work, and how many were at most."""

    def __init__(self, company: Company, seconds: float) -> None:
        self.now = self.most = 0
        for target in company.targets.values():
            for method in ("prepare", "shift", "finish", "restore"):
                setattr(target, method, self._counted(company, getattr(target, method), seconds))

    def _counted(self, company: Company, work: Any, seconds: float) -> Any:
        async def counted(*args: Any, **options: Any) -> Candidate | None:
            self.now += 1
            self.most = max(self.most, self.now)
            await company.clock.sleep(seconds)
            try:
                found: Candidate | None = await work(*args, **options)
                return found
            finally:
                self.now -= 1

        return counted


@pytest.fixture
def company(tmp_path: Path) -> Company:
    made = Company(tmp_path, [place(name, look_every="30s") for name in NAMES])
    memory: Any = MemoryLeases(made.clock, {}, Process())
    made.leases = memory
    return made


@pytest.mark.parametrize("concurrency", [1, 5, 100])
async def test_so_many_are_changed_at_the_same_time(company: Company, concurrency: int) -> None:
    async with company.at_work():
        await company.promote(release("1"), [NAMES])
        counted = Counted(company, seconds=1)
        began = company.clock.monotonic()
        await company.promote(release("2"), [NAMES], concurrency=concurrency)
    assert company.serving == company.everywhere("2")
    assert counted.most == min(concurrency, len(NAMES))
    # Who bakes has no turn: with one at a time the bakes still go on side by side.
    assert company.clock.monotonic() - began < 4 * 60 + len(NAMES) * 6


async def test_what_is_resumed_keeps_to_the_number_it_began_with(company: Company) -> None:
    async with company.at_work():
        await company.promote(release("1"), [NAMES])
        await record(release("2"), company.ledger)
        company.power = Power(at=40, kind="kill")
        with pytest.raises(BaseException) as killed:
            await company.promote(release("2"), [NAMES], concurrency=2)
    assert isinstance(first_failure(killed.value), Killed)
    company.power = Power()
    counted = Counted(company, seconds=1)
    async with company.at_work():
        await resume(company.places, company.options(), smoke=no_smoke)
    assert company.serving == company.everywhere("2")
    assert counted.most == 2


async def test_who_goes_back_waits_for_a_turn_and_comes_to_its_end(company: Company) -> None:
    async def smoke(_: str) -> None:
        if company.targets[NAMES[-1]].percent == 100:
            raise SmokeFailed("the basket is empty")

    async with company.at_work():
        await company.promote(release("1"), [NAMES])
        # All of them together take longer to go back than one of them may.
        counted = Counted(company, seconds=50)
        for target in company.targets.values():
            target.back_within = 60
        with pytest.raises(RolledBack):
            await company.promote(release("2"), [NAMES], concurrency=2, smoke=smoke)
    assert counted.most == 2
    assert company.serving == company.everywhere("1")


CONFIG = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"
[environments.staging]
port = 8102
[waves.live]
environments = [["staging"]]
concurrency = {concurrency}
"""


async def test_concurrency_is_configured_with_the_waves() -> None:
    config = Config.parse(CONFIG.format(concurrency=3), path=Path("pipeline.toml"))
    assert concurrency_of(config, "live") == 3
    assert concurrency_of(config, "staging") == 20
    with pytest.raises(ConfigError, match=r"pipeline.toml:9: .*concurrency"):
        Config.parse(CONFIG.format(concurrency=0), path=Path("pipeline.toml"))
