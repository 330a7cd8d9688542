"""What users see of a rollout: one real run with clients of every kind, that many tests read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from buildonce.config import EnvironmentConfig
from buildonce.config.rollout import RolloutConfig
from buildonce.delivery import deploy, rollback
from buildonce.delivery.local import LocalTarget
from buildonce.ledger import Ledger, Rollout, Step, new_run_id
from tests.loopback import free_port
from tests.samples import release

from .clients import CLIENTS, Kind, everybody
from .conftest import record
from .load import Seen, load
from .processes import ProcessContainers

ONE, TWO = release("1"), release("2")
WEIGHTS = (10, 50, 100)
CANARY = RolloutConfig.model_validate(
    {"strategy": "canary", "steps": WEIGHTS[:-1], "interval": "2s", "bake": "1s", "drain": "5s"}
)
POINTS = 3.0


@dataclass
class Day:
    """Release 2 in canary steps over 1, and back, under load all the time."""

    seen: Seen = field(default_factory=Seen)
    kinds: dict[str, Kind] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    asked_back: datetime | None = None
    left: list[str] = field(default_factory=list)

    def bakes(self) -> list[tuple[Step, Step]]:
        steps = [step for step in self.rollouts["2"].steps if step.name == "bake"]
        return list(zip(steps[::2], steps[1::2], strict=True))


async def live(day: Day, folder: Path) -> None:
    place = EnvironmentConfig(
        name="staging", port=free_port(), rollout=CANARY, smoke_path="/healthz"
    )
    containers = ProcessContainers(folder)
    target = LocalTarget(place, project="shop", containers=containers, home=folder)
    async with Ledger.open(folder / "ledger.sqlite") as ledger:
        common = {"project": "shop", "ledger": ledger, "target": target, "home": folder}
        for what in (ONE, TWO):
            await record(what, ledger)
        try:
            first = EnvironmentConfig(name="staging", port=place.port)
            await deploy(ONE, first, run=new_run_id(), **common)  # type: ignore[arg-type]
            async with (
                load(f"{place.url}/healthz", rate=100) as day.seen,
                everybody("127.0.0.1", place.local_port) as day.kinds,
            ):
                day.rollouts["2"] = await deploy(TWO, place, run=new_run_id(), **common)  # type: ignore[arg-type]
                await anyio.sleep(1)
                day.asked_back = datetime.now().astimezone()
                day.rollouts["back"] = await rollback(place, run=new_run_id(), **common)  # type: ignore[arg-type]
                await anyio.sleep(1)
            day.left = containers.running()
        finally:
            await target.down()
            containers.close()


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    one = Day()
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(live, one, Path(folder))
    yield one


def test_no_request_of_100_a_second_fails(day: Day) -> None:
    assert day.seen.failures == []
    assert day.seen.requests > 300


@pytest.mark.parametrize("kind", CLIENTS)
def test_no_client_of_any_kind_fails(day: Day, kind: str) -> None:
    seen = day.kinds[kind]
    assert seen.failures == []
    assert seen.done >= 4
    assert set(seen.versions) == {"1", "2"}, "it was there before, with and after the new release"


@pytest.mark.parametrize("number", range(len(WEIGHTS)))
def test_the_answers_follow_the_weights(day: Day, number: int) -> None:
    """By the proxy's own counters, as the report has them, and by what the users got."""
    wanted = WEIGHTS[number]
    begin, end = day.bakes()[number]
    counted = end.data["traffic"]
    assert end.data["percent"] == wanted
    assert counted["new"] + counted["old"] > 80
    assert counted["share"] == pytest.approx(wanted, abs=POINTS)
    assert counted["failed"] == 0
    # The load is a sample of all who ask in turn, and so is its share.
    answers = day.seen.between(begin.at, end.at)
    share = 100 * answers[TWO.image.digest] / answers.total()
    assert share == pytest.approx(wanted, abs=POINTS + 100 / answers.total() ** 0.5)


def test_a_rollback_is_all_at_once_and_leaves_one_release(day: Day) -> None:
    assert day.asked_back is not None
    back = day.rollouts["back"]
    assert (back.reason, back.result, back.version) == ("rollback", "succeeded", "1")
    assert not [step for step in back.steps if step.name == "bake"]
    assert back.finished is not None
    assert day.asked_back < day.seen.last(TWO.image.digest) < back.finished
    assert day.seen.order[-1] == ONE.image.digest
    assert len(day.left) == 1
