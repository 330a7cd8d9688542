"""The environment's stacks: planned as change sets, applied in the same order in every account.

    async for one in plan(aws, production, project="shop"):      # what would change, nothing done
        print(one)

What a release changes is in no stack, so that a rollout is no drift and a stack's update is no
deployment. A change that fails is rolled back by CloudFormation and reported; nothing tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.aws.change_sets import (
    LOOK_AGAIN,
    PATIENCE,
    Planned,
    StackFailed,
    discard,
    propose,
)
from buildonce.delivery.aws.drift import drift_of
from buildonce.delivery.aws.ecr import repository_arn
from buildonce.delivery.aws.errors import AwsRefused
from buildonce.delivery.aws.outputs import stack_name
from buildonce.delivery.aws.roles import stacks
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.tasks import secret_arns
from buildonce.delivery.errors import DeliveryError

# Parameters that the environment's own configuration fills, by template.
_FROM_OUTPUTS = {
    "network": {},
    "cluster": {"Vpc": "network.Vpc", "PublicSubnets": "network.PublicSubnets"},
    "service-ecs": {
        "Vpc": "network.Vpc",
        "PrivateSubnets": "network.PrivateSubnets",
        "Cluster": "cluster.Cluster",
        "Listener": "cluster.Listener",
        "Balancer": "cluster.Balancer",
        "BalancerGroup": "cluster.BalancerGroup",
        "Url": "cluster.Url",
    },
    "service-lambda": {},
}
_OWN = {
    "network": ("Range",),
    "cluster": ("Certificate", "Callers"),
    "service-ecs": ("ErrorsPerMinute", "LogDays"),
    "service-lambda": ("ErrorsPerMinute", "LogDays"),
}


def template(name: str) -> str:
    """The text of a template: "network", "cluster", "service-ecs", "service-lambda", "leases"."""
    folder = resources.files("buildonce.delivery.aws") / "templates"
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


async def plan(
    aws: AwsSession, environment: EnvironmentConfig, *, project: str, drift: bool = True
) -> list[Planned]:
    """What `apply` would do; change sets that it makes to find out are removed again.

    Args:
        aws: a session whose role may plan.
        environment: a place of one region.
        drift: look for changes by other hands too.

    Raises:
        NotPrepared: a stack is in a state that its own last change must be ended for first.
        DeliveryError: a parameter of the configuration belongs to no template.
    """
    planned: list[Planned] = []
    known: dict[str, Mapping[str, str]] = {}
    for name in _checked(environment):
        found = await _stack(aws, stack_name(project, environment.name, name))
        missing = [one.stack for one in planned if not one.exists or one.waits_for]
        if missing and name != "network":
            stack = stack_name(project, environment.name, name)
            planned.append(Planned(stack, found is not None, waits_for=missing[-1]))
            continue
        one = await _propose(aws, environment, project, name, found, known)
        if one.change_set is not None:
            await discard(aws, one)
        if found is not None:
            known[name] = _outputs(found)
            if drift:
                one = Planned(
                    one.stack, one.exists, one.changes, None, tuple(await drift_of(aws, one.stack))
                )
        planned.append(one)
    return planned


async def apply(
    aws: AwsSession,
    environment: EnvironmentConfig,
    *,
    project: str,
    say: Callable[[str], None],
    execution_role: str | None = None,
) -> list[Planned]:
    """Make the stacks what they should be, one after the other.

    Args:
        say: told what is being done, a line at a time.
        execution_role: ARN by which CloudFormation works; the caller's own rights when None.

    Returns:
        What was changed.

    Raises:
        StackFailed: a change failed; CloudFormation has put that stack back and the rest was not
            begun.
        NotPrepared, DeliveryError: as `plan`.
    """
    done: list[Planned] = []
    known: dict[str, Mapping[str, str]] = {}
    for name in _checked(environment):
        stack = stack_name(project, environment.name, name)
        found = await _stack(aws, stack)
        one = await _propose(aws, environment, project, name, found, known, execution_role)
        if one.change_set is None:
            say(f"{stack}: as it should be")
        else:
            say(f"{stack}: {len(one.changes)} resources to change")
            await aws.call(
                "cloudformation", "ExecuteChangeSet", ChangeSetName=one.change_set, StackName=stack
            )
            await _wait(aws, stack, say)
        done.append(one)
        after = await _stack(aws, stack)
        assert after is not None, "it was just made"
        known[name] = _outputs(after)
    return done


def _checked(environment: EnvironmentConfig) -> Sequence[str]:
    names = stacks(environment)
    allowed = {key for name in names for key in _OWN[_template(environment, name)]}
    unknown = sorted(set(environment.parameters) - allowed)
    if unknown:
        raise DeliveryError(
            f"environments.{environment.name}.parameters.{unknown[0]}: no template has it",
            remedy=f"one of: {', '.join(sorted(allowed))}",
        )
    return names


def _template(environment: EnvironmentConfig, name: str) -> str:
    return f"service-{environment.target}" if name == "service" else name


def _parameters(
    aws: AwsSession,
    environment: EnvironmentConfig,
    project: str,
    name: str,
    known: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    kind = _template(environment, name)
    values = {"Name": f"{project}-{environment.name}"}
    for key, source in _FROM_OUTPUTS[kind].items():
        stack, _, output = source.partition(".")
        values[key] = known[stack][output]
    values |= {key: v for key, v in environment.parameters.items() if key in _OWN[kind]}
    if name == "service":
        arns = secret_arns(aws, environment).values()
        for parameter, service in (("SecretArns", ":secretsmanager:"), ("ParameterArns", ":ssm:")):
            if own := sorted({arn for arn in arns if service in arn}):
                values[parameter] = ",".join(own)
    if kind == "service-ecs":
        values["Port"] = str(environment.service.container_port)
        values["HealthPath"] = environment.health_path
        if arn := repository_arn(environment.registry, partition=aws.partition):
            values["Repository"] = arn
    if kind == "service-lambda":
        values["Alias"] = environment.function.alias
        values["Url"] = environment.url
    elif environment.address and kind == "service-ecs":
        values["Url"] = environment.address
    return values


async def _propose(
    aws: AwsSession,
    environment: EnvironmentConfig,
    project: str,
    name: str,
    found: Mapping[str, Any] | None,
    known: Mapping[str, Mapping[str, str]],
    execution_role: str | None = None,
) -> Planned:
    return await propose(
        aws,
        stack_name(project, environment.name, name),
        found,
        body=template(_template(environment, name)),
        parameters=_parameters(aws, environment, project, name, known),
        tags={"project": project, "environment": environment.name},
        execution_role=execution_role,
    )


async def _wait(aws: AwsSession, stack: str, say: Callable[[str], None]) -> None:
    began, told = aws.clock.monotonic(), ""
    while True:
        found = await _stack(aws, stack)
        status = found["StackStatus"] if found is not None else "DELETE_COMPLETE"
        if not status.endswith("_IN_PROGRESS"):
            break
        if status != told:
            say(f"{stack}: {status}")
            told = status
        if aws.clock.monotonic() - began > PATIENCE:
            raise StackFailed(
                f"{stack} is still {status} after {PATIENCE / 60:g} minutes",
                remedy="CloudFormation goes on by itself; buildonce env plan shows when it is over",
            )
        await aws.clock.sleep(LOOK_AGAIN)
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        events = await aws.call("cloudformation", "DescribeStackEvents", StackName=stack)
        # The first failure is the cause; what comes after it is the way back.
        causes = [
            f"{one['LogicalResourceId']}: {one.get('ResourceStatusReason', 'no reason given')}"
            for one in reversed(events["StackEvents"])
            if one["ResourceStatus"].endswith("_FAILED")
        ]
        raise StackFailed(
            f"{stack} ended as {status}: {causes[0] if causes else 'no reason given'}",
            remedy="correct the cause, then buildonce env plan and env apply again",
        )


async def _stack(aws: AwsSession, stack: str) -> dict[str, Any] | None:
    try:
        answer = await aws.call("cloudformation", "DescribeStacks", StackName=stack)
    except AwsRefused as error:
        if error.code == "ValidationError" and "does not exist" in error.reason:
            return None
        raise
    found: dict[str, Any] = answer["Stacks"][0]
    return found


def _outputs(found: Mapping[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())}
