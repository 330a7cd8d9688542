"""Stacks: planned and applied in order, failures and drift reported."""

from __future__ import annotations

import anyio
import anyio.from_thread
import pytest

from buildonce.delivery.aws.change_sets import StackFailed
from buildonce.delivery.aws.stacks import apply, plan
from buildonce.delivery.errors import DeliveryError
from buildonce.delivery.target import unrecorded

from .simulation import Simulation
from .world import NAME, World, release

pytestmark = pytest.mark.anyio


def _quiet(_: str) -> None: ...


async def test_an_empty_account_gets_its_stacks_in_order(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation)
    aws = await world.session()
    planned = await plan(aws, world.environment, project="shop")
    assert [one.stack for one in planned] == [
        f"{NAME}-{x}" for x in ("network", "cluster", "service")
    ]
    assert planned[0].changes and planned[1].waits_for == f"{NAME}-network"
    assert not any(c.operation == "ExecuteChangeSet" for c in simulation.journal)
    done = await apply(aws, world.environment, project="shop", say=_quiet)
    assert all(one.changes for one in done)
    again = await plan(aws, world.environment, project="shop")
    assert [(one.changes, one.drift) for one in again] == [((), ())] * 3
    # And they are what a release needs.
    target = await world.target()
    candidate = await target.prepare(release("1"), rollout="r1", step=unrecorded)
    await target.shift(candidate, 100)
    await target.finish(candidate)
    assert world.serving == {release("1").image.digest: 100}


async def test_a_changed_parameter_is_one_change(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation)
    aws = await world.session()
    await apply(aws, world.environment, project="shop", say=_quiet)
    changed = world.environment.model_copy(update={"parameters": {"ErrorsPerMinute": "9"}})
    planned = await plan(aws, changed, project="shop")
    assert [str(c) for one in planned for c in one.changes] == [
        "Modify  ErrorsAlarm AWS::CloudWatch::Alarm (Threshold)"
    ]
    wrong = world.environment.model_copy(update={"parameters": {"Errors": "9"}})
    with pytest.raises(DeliveryError, match="no template has it"):
        await plan(aws, wrong, project="shop")


async def test_a_failed_change_is_reported_and_the_rest_not_begun(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation)
    aws = await world.session()
    world.place.stacks.fail_on["Balancer"] = "You have reached the limit of load balancers"
    with pytest.raises(StackFailed, match="Balancer: You have reached the limit"):
        await apply(aws, world.environment, project="shop", say=_quiet)
    assert f"{NAME}-service" not in world.place.stacks.stacks
    with pytest.raises(DeliveryError, match="ROLLBACK_COMPLETE"):  # reported again, not fought
        await plan(aws, world.environment, project="shop")


async def test_a_plan_that_is_interrupted_leaves_no_change_set(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation)
    aws = await world.session()
    with anyio.CancelScope() as scope:
        looks = world.place.stacks
        # As Ctrl-C does; calls are made in a thread.
        simulation.when(lambda: bool(looks.sets), lambda: anyio.from_thread.run_sync(scope.cancel))
        await plan(aws, world.environment, project="shop")
    assert scope.cancelled_caught
    assert simulation.counts["cloudformation.CreateChangeSet"] == 1
    assert world.place.stacks.sets == {}


async def test_drift_is_told_but_not_what_rollouts_move(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation)
    aws = await world.session()
    await apply(aws, world.environment, project="shop", say=_quiet)
    difference = {"ExpectedValue": "1", "ActualValue": "2", "DifferenceType": "NOT_EQUAL"}
    service = world.place.stacks.stacks[f"{NAME}-service"]
    service.drifted["Rule"] = [{"PropertyPath": "/Actions/0/ForwardConfig", **difference}]
    planned = await plan(aws, world.environment, project="shop")
    assert [one.drift for one in planned] == [(), (), ()]
    service.drifted["Logs"] = [{"PropertyPath": "/RetentionInDays", **difference}]
    planned = await plan(aws, world.environment, project="shop")
    assert planned[2].drift == ("Logs AWS::Logs::LogGroup: /RetentionInDays",)


async def test_a_function_has_one_stack(simulation: Simulation) -> None:
    world = World("lambda", simulation=simulation)
    done = await apply(await world.session(), world.environment, project="shop", say=_quiet)
    assert [one.stack for one in done] == [f"{NAME}-service"]
