"""The local target with a real HAProxy and real servers; only containers are plain processes."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest

from buildonce.config import EnvironmentConfig
from buildonce.delivery import (
    RollbackFailed,
    RolledBack,
    Shift,
    SmokeFailed,
    deploy,
    http_smoke,
    recover,
    rollback,
)
from buildonce.delivery.local import LocalTarget
from buildonce.ledger import Ledger, Rollout, new_run_id
from buildonce.release import Release
from tests.loopback import free_port
from tests.samples import release

from .conftest import record
from .load import Seen, load
from .processes import ProcessContainers

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = release("1"), release("2"), release("3")


class Shop:
    """One environment under test."""

    def __init__(
        self, environment: EnvironmentConfig, ledger: Ledger, target: LocalTarget, home: Path
    ) -> None:
        self.environment = environment
        self.ledger = ledger
        self.target = target
        self.home = home
        self.said: list[str] = []

    async def deploy(self, what: Release, **options: object) -> Rollout:
        await record(what, self.ledger)
        usual: dict[str, object] = {
            "project": "shop",
            "ledger": self.ledger,
            "run": new_run_id(),
            "target": self.target,
            "home": self.home,
            "progress": self.said.append,
        }
        return await deploy(what, self.environment, **{**usual, **options})  # type: ignore[arg-type]

    async def rollback(self) -> Rollout:
        return await rollback(
            self.environment,
            project="shop",
            ledger=self.ledger,
            run=new_run_id(),
            target=self.target,
            home=self.home,
        )

    def become(self, **changes: object) -> None:
        """The same environment, configured otherwise."""
        self.environment = self.environment.model_copy(update=changes)
        self.target = LocalTarget(
            self.environment, project="shop", containers=self.target.containers, home=self.home
        )

    async def answers(self) -> dict[str, str]:
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{self.environment.url}/healthz")
            response.raise_for_status()
            found: dict[str, str] = response.json()
            return found

    async def settled(self) -> None:
        """All traffic is on one slot by its weight, and the other is empty."""
        states = (await self.target.proxy.states()).values()
        assert sorted(s.weight for s in states if s.status != "MAINT") == [1], states

    async def steps(self) -> list[str]:
        rollout = (await self.ledger.rollouts())[0]
        return [f"{s.name} {s.data['state']}" for s in rollout.steps if s.name != "watch"]


@pytest.fixture
def shop(
    environment: EnvironmentConfig, ledger: Ledger, target: LocalTarget, tmp_path: Path
) -> Shop:
    return Shop(environment, ledger, target, tmp_path / "home")


async def test_first_deployment_answers_with_its_digest_and_configuration(shop: Shop) -> None:
    rollout = await shop.deploy(ONE)
    answer = await shop.answers()
    assert answer == {"digest": ONE.image.digest, "version": "1", "greeting": "hello"}
    assert (rollout.result, rollout.running_digest) == ("succeeded", ONE.image.digest)
    assert await shop.steps() == [
        f"{step} {state}"
        for step in ("pull", "start", "healthy", "prepared", "shift", "smoke", "proven", "finish")
        for state in ("started", "done")
        if (step, state) not in {("prepared", "started"), ("proven", "started")}
    ]
    deployed = await shop.target.current()
    assert deployed is not None
    assert (deployed.healthy, deployed.rollout, deployed.version) == (True, rollout.id, "1")


async def test_no_request_fails_during_switches_and_rollback(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    async with load(f"{shop.environment.url}/healthz", rate=100) as seen:
        await shop.deploy(TWO)
        await shop.rollback()
        await shop.deploy(THREE)
    assert seen.failures == []
    assert seen.requests > 100
    assert {ONE.image.digest, TWO.image.digest, THREE.image.digest} == set(seen.digests)
    assert len(containers.running()) == 1
    await shop.settled()


async def test_a_request_that_is_being_served_ends_on_the_release_that_began_it(
    shop: Shop,
) -> None:
    await shop.deploy(ONE)
    answers: list[str] = []

    async def slow() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answers.append((await client.get(f"{shop.environment.url}/slow?1.5")).json()["version"])

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await anyio.sleep(0.2)
        await shop.deploy(TWO)
    assert answers == ["1"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("unhealthy", "it answered 500"),
        ("exit", "cannot find the flux capacitor"),
        ("silent", "not healthy within 5 s"),
        ("liar", "the service says that it is"),
    ],
)
async def test_a_release_that_is_not_healthy_never_gets_a_request(
    shop: Shop, containers: ProcessContainers, broken: str, message: str
) -> None:
    await shop.deploy(ONE)
    containers.broken[TWO.image.digest] = broken
    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        with pytest.raises(RolledBack, match=message) as failure:
            await shop.deploy(TWO)
    assert failure.value.exit_code == 3
    assert seen.failures == []
    assert set(seen.digests) == {ONE.image.digest}
    rollout = (await shop.ledger.rollouts())[0]
    assert (rollout.result, rollout.running_digest) == ("rolled-back", ONE.image.digest)
    assert message in (rollout.cause or "")
    assert len(containers.running()) == 1


async def test_a_failed_smoke_test_puts_the_previous_release_back_without_a_failed_request(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    asked: list[str] = []

    async def smoke(url: str) -> None:
        asked.append(url)
        await anyio.sleep(0.3)
        raise SmokeFailed("the basket is empty")

    async with load(f"{shop.environment.url}/healthz", rate=100) as seen:
        with pytest.raises(RolledBack, match="the basket is empty"):
            await shop.deploy(TWO, smoke=smoke)
    assert asked == [shop.environment.url]
    assert seen.failures == []
    assert seen.order[0] == seen.order[-1] == ONE.image.digest
    assert seen.digests[TWO.image.digest] > 0
    assert (await shop.answers())["version"] == "1"
    await shop.settled()
    assert (await shop.steps())[-3:] == ["smoke failed", "restore started", "restore done"]
    assert len(containers.running()) == 1
    assert (await shop.ledger.current("staging")).digest == ONE.image.digest  # type: ignore[union-attr]


async def test_a_failed_first_deployment_leaves_nothing(
    shop: Shop, containers: ProcessContainers
) -> None:
    containers.broken[ONE.image.digest] = "exit"
    with pytest.raises(RolledBack, match="nothing runs"):
        await shop.deploy(ONE)
    assert containers.running() == []
    assert containers.networks == set()
    assert not await shop.target.proxy.running()
    assert await shop.target.current() is None
    del containers.broken[ONE.image.digest]
    await shop.deploy(ONE)
    assert (await shop.answers())["version"] == "1"


def only_cut_off(failures: list[str]) -> bool:
    """At most a request or two that a killed process was about to read: nobody can save those.

    (Its kernel resets their connections; that a proxy may not take for "not begun".)
    """
    return len(failures) <= 2 and not any(failure.startswith("503") for failure in failures)


async def test_a_release_that_dies_while_it_is_being_tested_is_stood_in_for(
    shop: Shop, containers: ProcessContainers
) -> None:
    """The previous one takes over at once, before anybody decided anything."""
    await shop.deploy(ONE)
    first = containers.running()

    async def smoke(url: str) -> None:
        await anyio.sleep(0.3)
        (new,) = set(containers.running()) - set(first)
        containers.kill(new)
        await anyio.sleep(2)
        raise SmokeFailed("it died")

    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        with pytest.raises(RolledBack):
            await shop.deploy(TWO, smoke=smoke)
    assert only_cut_off(seen.failures), seen.failures


async def test_a_container_that_dies_and_is_started_again_is_waited_for(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    (only,) = containers.running()
    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        containers.kill(only)
        await anyio.sleep(1)
        await containers.resume(only)
        await anyio.sleep(1)
    assert only_cut_off(seen.failures), seen.failures


async def test_a_service_that_says_it_is_ill_is_still_asked_when_there_is_no_other(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    (only,) = containers.running()
    containers.kill(only)
    containers.broken[ONE.image.digest] = "unhealthy"
    await containers.resume(only)
    while (await shop.target.proxy.states())["a"].up:
        await anyio.sleep(0.1)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{shop.environment.url}/basket")).status_code == 200
    deployed = await shop.target.current()
    assert deployed is not None
    assert (deployed.healthy, "it answered 500" in deployed.detail) == (False, True)


async def test_the_same_release_again_starts_nothing_but_is_tested_and_recorded(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    before = containers.running()
    rollout = await shop.deploy(ONE)
    assert containers.running() == before
    assert rollout.result == "succeeded"
    assert await shop.steps() == ["smoke started", "smoke done", "unchanged done"]


async def test_another_configuration_of_the_same_digest_is_a_change(shop: Shop) -> None:
    await shop.deploy(ONE)
    shop.become(configuration={"GREETING": "good day"})
    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        await shop.deploy(ONE)
    assert seen.failures == []
    assert (await shop.answers())["greeting"] == "good day"


async def test_rollback_brings_the_configuration_back(
    shop: Shop, containers: ProcessContainers
) -> None:
    """The release is the whole of it: the digest was the same before."""
    await shop.deploy(ONE)
    shop.become(configuration={"GREETING": "good day"})
    await shop.deploy(ONE)
    assert (await shop.answers())["greeting"] == "good day"
    await shop.rollback()
    assert (await shop.answers())["greeting"] == "hello"
    assert len(containers.running()) == 1


async def test_blue_green_is_proven_without_traffic(shop: Shop) -> None:
    """What fails its test on an address of its own has never answered anybody."""
    await shop.deploy(ONE)
    shop.become(rollout=shop.environment.rollout.model_copy(update={"strategy": "blue-green"}))
    asked: list[str] = []

    async def smoke(url: str) -> None:
        asked.append(url)
        async with httpx.AsyncClient(trust_env=False) as client:
            found = (await client.get(f"{url}/healthz")).json()
        if found["version"] != "2":
            return
        raise SmokeFailed("the new one is not what we want")

    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        with pytest.raises(RolledBack, match="not what we want"):
            await shop.deploy(TWO, smoke=smoke)
        await shop.deploy(TWO)
    assert asked[0] != shop.environment.url
    assert seen.failures == []
    steps = [r.steps for r in reversed(await shop.ledger.rollouts())]
    assert [[s.name for s in each].count("shift") for each in steps] == [2, 0, 2]
    assert [s.data["state"] for s in steps[1] if s.name == "preview"] == ["started", "failed"]
    assert (await shop.answers())["version"] == "2"


async def test_traffic_is_split_by_weight_while_it_bakes(shop: Shop) -> None:
    await shop.deploy(ONE)
    split: Counter[str] = Counter()
    baking = anyio.Event()

    def listen(line: str) -> None:
        if "watching" in line:
            baking.set()

    async def watch(seen: Seen) -> None:
        """Count the answers of the first three seconds of the bake."""
        await baking.wait()
        before = seen.digests.copy()
        await anyio.sleep(3)
        split.update(seen.digests - before)

    async with (
        load(f"{shop.environment.url}/healthz", rate=100) as seen,
        anyio.create_task_group() as group,
    ):
        group.start_soon(watch, seen)
        traffic = [Shift(30, timedelta(seconds=3.5)), Shift(100)]
        await shop.deploy(TWO, traffic=traffic, progress=listen)
    assert seen.failures == []
    assert split[TWO.image.digest] / split.total() == pytest.approx(0.30, abs=0.03)


async def test_cancellation_puts_the_previous_release_back(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    async with load(f"{shop.environment.url}/healthz", rate=50) as seen:
        with anyio.move_on_after(1) as scope:
            await shop.deploy(TWO, smoke=lambda _: anyio.sleep(60))
    assert scope.cancelled_caught
    assert seen.failures == []
    assert (await shop.answers())["version"] == "1"
    rollout = (await shop.ledger.rollouts())[0]
    assert (rollout.result, rollout.cause) == ("rolled-back", "interrupted")
    assert len(containers.running()) == 1


async def test_after_a_reboot_the_environment_comes_back(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    await shop.target.proxy.stop()
    for name in containers.running():
        containers.kill(name)
    deployed = await shop.target.current()
    assert deployed is not None
    assert (deployed.healthy, deployed.detail) == (False, "its proxy is not running")
    await recover(shop.target, shop.environment, ledger=shop.ledger, progress=shop.said.append)
    assert (await shop.answers())["version"] == "1"
    assert any("is not running; starting it" in line for line in shop.said)


async def test_a_dead_release_that_cannot_be_revived_is_replaced(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)
    containers.broken[ONE.image.digest] = "exit"
    for name in containers.running():
        containers.kill(name)
    await shop.deploy(TWO)
    assert (await shop.answers())["version"] == "2"
    assert len(containers.running()) == 1


async def test_going_back_that_fails_is_named_and_completed_by_the_next_deployment(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)

    async def smoke(_: str) -> None:
        containers.refuse.add("remove")
        raise SmokeFailed("no basket")

    with pytest.raises(RollbackFailed, match="no basket; and going back failed"):
        await shop.deploy(TWO, smoke=smoke)
    assert (await shop.answers())["version"] == "1", "traffic goes back first"
    containers.refuse.clear()
    await shop.deploy(TWO)
    assert (await shop.answers())["version"] == "2"
    assert len(containers.running()) == 1


async def test_a_previous_container_that_cannot_be_removed_does_not_undo_a_good_release(
    shop: Shop, containers: ProcessContainers
) -> None:
    await shop.deploy(ONE)

    async def smoke(url: str) -> None:
        await http_smoke(digest=TWO.image.digest)(url)
        containers.refuse.add("remove")

    rollout = await shop.deploy(TWO, smoke=smoke)
    assert rollout.result == "succeeded"
    assert "not wholly removed" in (rollout.cause or "")
    assert len(containers.running()) == 2
    containers.refuse.clear()
    await shop.deploy(TWO)
    assert len(containers.running()) == 1


async def test_a_taken_port_is_named(shop: Shop, containers: ProcessContainers) -> None:
    listener = await anyio.create_tcp_listener(
        local_host="127.0.0.1", local_port=shop.environment.port
    )
    async with listener:
        with pytest.raises(RolledBack, match=f"port {shop.environment.port} .* is taken"):
            await shop.deploy(ONE)
    assert containers.running() == []


async def test_down_removes_everything(
    shop: Shop, containers: ProcessContainers, tmp_path: Path
) -> None:
    await shop.deploy(ONE)
    await shop.target.down()
    assert containers.running() == []
    assert containers.networks == set()
    assert not shop.target.folder.exists()
    with pytest.raises(httpx.ConnectError):
        await shop.answers()


async def test_an_environment_of_the_same_name_in_another_home_is_left_alone(
    shop: Shop, containers: ProcessContainers, tmp_path: Path, unused_port: int
) -> None:
    await shop.deploy(ONE)
    ours = containers.running()
    elsewhere = shop.environment.model_copy(update={"port": free_port()})
    other = LocalTarget(elsewhere, project="shop", containers=containers, home=tmp_path / "other")
    async with Ledger.open(tmp_path / "other.sqlite") as ledger:
        await deploy(
            TWO,
            elsewhere,
            project="shop",
            ledger=ledger,
            run=new_run_id(),
            target=other,
            home=tmp_path / "other",
        )
        assert len(containers.running()) == 2
        await other.down()
    assert containers.running() == ours
    assert (await shop.answers())["version"] == "1"


async def test_the_state_names_no_secret_to_others(shop: Shop) -> None:
    await shop.deploy(ONE)
    state = shop.target.folder / "state.json"
    assert state.stat().st_mode & 0o077 == 0
    assert json.loads(state.read_text())["active"] in ("a", "b")
