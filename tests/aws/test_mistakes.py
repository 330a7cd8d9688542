"""What is wrong before anything is touched: said, with what to type, and nothing was written."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest

from buildonce.delivery.aws.errors import (
    AwsRefused,
    AwsUnreachable,
    NoCredentials,
    NotPrepared,
    WrongIdentity,
)
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.stacks import plan
from buildonce.errors import BuildonceError, ExitCode

from .rollouts import Team
from .simulation import Simulation
from .wire import Answer
from .world import ACCOUNT, NAME, World, release

pytestmark = pytest.mark.anyio

ONE, TWO = release("1.0"), release("2.0")
_READS = ("Describe", "Get", "List", "Assume")


def _written(simulation: Simulation) -> list[str]:
    return [call.name for call in simulation.journal if not call.operation.startswith(_READS)]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"role": "shop-other"}, AwsRefused, "not authorized to perform: sts:AssumeRole"),
        ({"external_id": "buildonce-2"}, AwsRefused, "not authorized to perform: sts:AssumeRole"),
        ({"external_id": None}, AwsRefused, "not authorized to perform: sts:AssumeRole"),
        (
            {"region": "us-east-1"},
            AwsRefused,
            "refused DescribeStacks in account .*us-east-1",
        ),
        (
            {"role": "arn:aws:iam::333333333333:role/shop-deploy"},
            WrongIdentity,
            "the caller is arn:aws:sts::333333333333:assumed-role",
        ),
    ],
)
async def test_a_mistaken_account_region_or_role(
    simulation: Simulation,
    change: dict[str, str | None],
    error: type[BuildonceError],
    said: str,
) -> None:
    world = World("weighted", simulation=simulation).furnish()
    policy = simulation.roles[f"arn:aws:iam::{ACCOUNT}:role/shop-deploy"].policy
    simulation.role("333333333333", "shop-deploy", policy=policy)
    world.environment = world.environment.model_copy(update=change)
    with pytest.raises(error, match=said) as raised:
        await Team(world).deploy(ONE)
    assert raised.value.remedy
    assert _written(simulation) == []


async def test_another_account_behind_the_role(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation).furnish()
    simulation.lies_about_identity = "444444444444"
    with pytest.raises(WrongIdentity, match="the role leads to account 444444444444"):
        await Team(world).deploy(ONE)
    assert _written(simulation) == []


async def test_a_key_that_never_expires_is_refused(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation).furnish()

    def forever() -> object:
        session = simulation.connect()
        session.set_credentials("a key", "and its secret")
        return session

    with pytest.raises(NoCredentials, match="never expires") as raised:
        await AwsSession.open(world.environment, run="r", clock=simulation.clock, connect=forever)
    assert raised.value.exit_code == ExitCode.USAGE
    assert simulation.journal == []


async def test_no_credentials_at_all(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation).furnish()

    def nobody() -> object:
        session = simulation.connect()
        session._credentials = None
        session.get_credentials = lambda: None
        return session

    with pytest.raises(NoCredentials, match="no credentials to assume the role of production"):
        await AwsSession.open(world.environment, run="r", clock=simulation.clock, connect=nobody)


async def test_credentials_that_have_ended(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation).furnish()
    caller = simulation.sessions[simulation.caller_key]
    simulation.sessions[simulation.caller_key] = type(caller)(
        caller.account, caller.arn, None, simulation.clock.now() - timedelta(minutes=1)
    )
    with pytest.raises(AwsRefused, match="ExpiredToken") as raised:
        await Team(world).deploy(ONE)
    assert "log in anew" in str(raised.value.remedy)
    assert _written(simulation) == []


async def test_a_rollout_that_is_longer_than_its_credentials(simulation: Simulation) -> None:
    steps = (
        '[environments.production.rollout]\nstrategy = "canary"\nsteps = [10]\n'
        'interval = "2h"\nbake = "3h"\nlook_every = "60s"'
    )
    team = Team(World("weighted", steps, simulation).furnish())
    await team.deploy(ONE)
    before = simulation.counts["sts.AssumeRole"]
    await team.deploy(TWO)
    assert await team.check() == TWO.image.digest
    assert simulation.counts["sts.AssumeRole"] - before >= 5  # once for each hour


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "delete-stack"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("UPDATE_IN_PROGRESS", "wait for it to end"),
    ],
)
async def test_a_stack_whose_last_change_has_not_ended_well(
    status: str, remedy: str, simulation: Simulation
) -> None:
    team = Team(World("weighted", simulation=simulation).furnish())
    stack = team.world.place.stacks.stacks[f"{NAME}-service"]
    stack.status, stack.reason = status, "The following resource failed: [Rule]"
    with pytest.raises(NotPrepared, match=f"{NAME}-service .*is {status}") as raised:
        await team.deploy(ONE)
    assert "buildonce env plan production" in str(raised.value.remedy)
    aws = await team.world.session()
    with pytest.raises(NotPrepared, match=f"is {status}.*failed: .Rule.") as planned:
        await plan(aws, team.world.environment, project="shop")
    assert remedy in str(planned.value.remedy)
    assert "ecs.RegisterTaskDefinition" not in _written(simulation)


async def test_a_template_that_is_older_than_this_version(simulation: Simulation) -> None:
    team = Team(World("weighted", simulation=simulation).furnish())
    del team.world.place.stacks.stacks[f"{NAME}-service"].outputs["ListenerRule"]
    with pytest.raises(NotPrepared, match="has no output ListenerRule") as raised:
        await team.deploy(ONE)
    assert "env apply production" in str(raised.value.remedy)
    assert _written(simulation) == []


async def test_a_proxy_that_answers_in_place_of_a_service(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("weighted", simulation=simulation).furnish()
    page = Answer(502, {"Content-Type": "text/html"}, b"<h1>Bad gateway")
    monkeypatch.setattr(simulation, "respond", lambda *_: page)
    with pytest.raises(AwsUnreachable, match=r"what answered AssumeRole .* is not sts") as raised:
        await Team(world).deploy(ONE)
    assert "proxy" in str(raised.value.remedy)


async def test_without_boto3_the_extra_is_named(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("weighted", simulation=simulation)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(BuildonceError, match="need boto3") as raised:
        await AwsSession.open(world.environment, run="r")
    assert raised.value.remedy == "pip install 'buildonce[aws]'"
