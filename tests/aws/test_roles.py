"""Least privilege, both ways: each call that is made is allowed, and nothing is that never is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from buildonce.config import Config
from buildonce.delivery import RolledBack
from buildonce.delivery.aws.change_sets import StackFailed
from buildonce.delivery.aws.commands import app
from buildonce.delivery.aws.roles import documents
from buildonce.delivery.aws.stacks import apply, plan
from buildonce.delivery.target import unrecorded

from .access import action_of, allows
from .faults import Fault, Process
from .rollouts import Team, fails
from .simulation import Simulation
from .world import ACCOUNT, KINDS, NAME, World, environment, release

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (release(version) for version in ("1.0", "2.0", "3.0"))
METRIC = """
[[environments.production.metrics]]
namespace = "Shop"
name = "Errors"
"""
# What a registry makes of the Docker protocol; a registry on loopback has no IAM.
_LAYERS = {
    f"ecr:{action}"
    for action in (
        "BatchCheckLayerAvailability",
        "BatchGetImage",
        "CompleteLayerUpload",
        "GetDownloadUrlForLayer",
        "InitiateLayerUpload",
        "PutImage",
        "UploadLayerPart",
    )
}


@dataclass
class AtCall(Fault):
    """A fault at the first call of that name: those around it may come in another order."""

    called: str = ""

    def begins(self, number: int, name: str) -> bool:
        if name == self.called and not self.hit:
            self.at = number
        return super().begins(number, name)


async def _whole_life(team: Team) -> None:
    """All that buildonce can do to an environment, from the empty account until it is gone."""
    world = team.world
    stacks = await world.session()
    passed = f"arn:aws:iam::{ACCOUNT}:role/{NAME}-eu-west-1-cloudformation"
    world.place.stacks.fail_on["Logs"] = "the limit of log groups"
    with pytest.raises(StackFailed):
        await apply(
            stacks, world.environment, project="shop", say=team.told.append, execution_role=passed
        )
    world.place.stacks.fail_on.clear()
    world.place.stacks.stacks.pop(f"{NAME}-service")  # as its message says
    await apply(stacks, world.environment, project="shop", say=team.told.append)
    drifting = world.place.stacks.stacks[f"{NAME}-service"].drifted
    drifting["Logs"] = [{"PropertyPath": "/Retention", "ExpectedValue": "1", "ActualValue": "2"}]
    drifting["Logs"][0]["DifferenceType"] = "NOT_EQUAL"
    assert (await plan(stacks, world.environment, project="shop"))[-1].drift
    with pytest.raises(RolledBack):
        await team.deploy(ONE, smoke=fails)  # nothing ran before: nothing runs
    await team.deploy(ONE)
    process = Process()
    await team.deploy(TWO, process)
    if "ecs.UpdateService" in process.calls:  # the next one dies while ECS is at it
        with pytest.raises(BaseException) as death:
            await team.deploy(THREE, Process(AtCall("kill after", -1, called="ecs.UpdateService")))
        assert "Killed" in repr(death.value)
        await team.resume(back=True)
    with pytest.raises(RolledBack):
        await team.deploy(THREE, smoke=fails)
    await team.rollback()
    target = await world.target()
    await target.repair(team.told.append)
    candidate = await target.prepare(THREE, rollout="r", step=unrecorded)
    pending = await target.pending()
    await target.restore(pending or candidate, "enough")
    await target.down()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_role_allows_what_is_called_and_nothing_else(
    kind: str, simulation: Simulation
) -> None:
    team = Team(World(kind, METRIC, simulation))
    await _whole_life(team)
    for each, role in (("deploy", "shop-deploy"), ("stacks", "shop-stacks")):
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        # The simulation denies what no statement allows, and remembers what allowed the rest.
        used = {action for who, action in simulation.used.calls if who == arn}
        granted = {
            action
            for statement in documents(team.world.environment, project="shop")[each]["Statement"]
            for action in statement["Action"]
        }
        assert used == granted - _LAYERS, f"{each}: {used ^ (granted - _LAYERS)}"
    # The caller enters as the role of the configuration, and as the other that `--as` names.
    caller = documents(team.world.environment, project="shop")["caller"]
    entered = {
        call.parameters["RoleArn"] for call in simulation.journal if call.operation == "AssumeRole"
    }
    assert [arn for arn in entered if allows(caller, "sts:AssumeRole", arn, {})] == [
        f"arn:aws:iam::{ACCOUNT}:role/shop-deploy"
    ]
    assert entered == {f"arn:aws:iam::{ACCOUNT}:role/shop-{name}" for name in ("deploy", "stacks")}
    named = {action_of(call) for call in simulation.journal if call.service != "sts"}
    assert named <= {action for _, action in simulation.used.calls}


@pytest.mark.parametrize("kind", KINDS)
def test_no_role_has_a_wildcard_action(kind: str) -> None:
    more = 'registry = "222222222222.dkr.ecr.eu-west-1.amazonaws.com/shop"'
    source = "111111111111.dkr.ecr.eu-west-1.amazonaws.com/shop"
    found = documents(environment(kind, more), project="shop", source=source)
    assert set(found) == {"caller", "deploy", "stacks", "cloudformation"}
    for name, document in found.items():
        for statement in document["Statement"]:
            assert statement["Effect"] == "Allow"
            for action in statement["Action"]:
                assert "*" not in action, f"{name}: {action}"
                assert action.partition(":")[2].isalnum()


def test_the_registry_of_an_account_is_written_and_that_of_the_tools_only_read() -> None:
    more = 'registry = "222222222222.dkr.ecr.eu-west-1.amazonaws.com/shop"'
    source = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/team/shop"
    found = documents(environment("weighted", more), project="shop", source=source)["deploy"]
    by_sid = {one["Sid"]: one for one in found["Statement"]}
    own, other = by_sid["Registry"], by_sid["ReleasesToCopy"]
    assert own["Resource"] == "arn:aws:ecr:eu-west-1:222222222222:repository/shop"
    assert other["Resource"] == "arn:aws:ecr:eu-central-1:111111111111:repository/team/shop"
    assert set(own["Action"]) == _LAYERS
    assert not any("Put" in action or "Upload" in action for action in other["Action"])
    assert "Registry" not in str(documents(environment("weighted"), project="shop", source=source))


def test_env_plan_prints_the_documents_and_asks_nobody(tmp_path: Path) -> None:
    text = Path("ci/pipeline.toml").read_text()
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDONCE_PROFILE", "aws-simulated")
        done = CliRunner().invoke(
            app, ["env", "plan", "production", "--role", "--json", "-c", str(path)]
        )
        assert done.exit_code == 0, done.output
        config = Config.load(path)
    shown = json.loads(done.stdout)
    assert list(shown) == ["production-eu-west-1", "production-us-east-1"]
    source = config.project.repository
    for place in config.environments["production"].places:
        assert shown[place.name]["roles"] == documents(place, project="dashboard", source=source)
