"""The environment's stacks: planned as change sets, applied in the same order in every account.

    async for one in plan(aws, production, project="shop"):      # what would change, nothing done
        print(one)

What a release changes is in no stack, so that a rollout is no drift and a stack's update is no
deployment. A change that fails is rolled back by CloudFormation and reported; nothing tries again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.aws.errors import AwsRefused, NotPrepared
from buildonce.delivery.aws.outputs import stack_name
from buildonce.delivery.aws.roles import stacks
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.tasks import secret_arns
from buildonce.delivery.errors import DeliveryError, TargetFailed

_LOOK_AGAIN = 5.0
_PATIENCE = 45 * 60.0
_MOVED_BY_ROLLOUTS = {"Rule": ("/Actions", "/Tags")}
"""Properties that rollouts change: that they differ from the template is no drift."""

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


class StackFailed(TargetFailed):
    """CloudFormation could not make a change, and has put back what was before."""


@dataclass(frozen=True)
class Change:
    """One resource that a change set touches."""

    action: str
    logical_id: str
    kind: str
    replacement: str
    properties: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f" ({', '.join(self.properties)})" if self.properties else ""
        loses = ", REPLACED" if self.replacement not in ("", "False") else ""
        return f"{self.action:<7} {self.logical_id} {self.kind}{what}{loses}"


@dataclass(frozen=True)
class Planned:
    """What would become of a stack.

    Attributes:
        stack: its name.
        exists: it is there already.
        changes: of its resources; empty when it is as it should be.
        waits_for: the stack before it that must exist first, so that nothing can be said yet.
        drift: resources that were changed by other hands.
    """

    stack: str
    exists: bool
    changes: tuple[Change, ...] = ()
    waits_for: str | None = None
    drift: tuple[str, ...] = ()
    change_set: str | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "stack": self.stack,
            "exists": self.exists,
            "changes": [vars(change) for change in self.changes],
            "waits_for": self.waits_for,
            "drift": list(self.drift),
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
            await _discard(aws, one)
        if found is not None:
            known[name] = _outputs(found)
            if drift:
                one = Planned(
                    one.stack, one.exists, one.changes, None, tuple(await _drift(aws, one.stack))
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
        registry = environment.registry or ""
        if ".dkr.ecr." in registry:
            account, region = registry.split(".")[0], registry.split(".")[3]
            repository = registry.partition("/")[2]
            arn = f"arn:{aws.partition}:ecr:{region}:{account}:repository/{repository}"
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
    """A change set for one stack; none is left where nothing changes."""
    stack = stack_name(project, environment.name, name)
    exists = found is not None and found["StackStatus"] != "REVIEW_IN_PROGRESS"
    if found is not None and exists:
        _must_be_calm(found, environment)
    body = template(_template(environment, name))
    parameters = _parameters(aws, environment, project, name, known)
    content = repr((body, sorted(parameters.items()), aws.clock.now())).encode()
    role = {} if execution_role is None else {"RoleARN": execution_role}
    made = await aws.call(
        "cloudformation",
        "CreateChangeSet",
        StackName=stack,
        ChangeSetName=f"buildonce-{hashlib.sha256(content).hexdigest()[:16]}",
        ChangeSetType="UPDATE" if exists else "CREATE",
        TemplateBody=body,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in sorted(parameters.items())
        ],
        Tags=[
            {"Key": "buildonce:project", "Value": project},
            {"Key": "buildonce:environment", "Value": environment.name},
        ],
        **role,
    )
    aws.must_be_here(made["StackId"], f"the stack {stack}")
    changes: list[Change] = []
    async for page in _change_set(aws, stack, made["Id"]):
        if page["Status"] == "FAILED":
            if not _nothing(page.get("StatusReason", "")):
                raise StackFailed(
                    f"{stack} cannot be changed so: {page.get('StatusReason')}",
                    remedy=f"correct the parameters of {environment.name}",
                )
            empty = Planned(stack, exists, change_set=made["Id"])
            await _discard(aws, empty)
            return Planned(stack, exists)
        changes += [_change(one["ResourceChange"]) for one in page.get("Changes", ())]
    return Planned(stack, exists, tuple(changes), change_set=made["Id"])


async def _change_set(
    aws: AwsSession, stack: str, identifier: str
) -> AsyncIterator[Mapping[str, Any]]:
    token: dict[str, str] = {}
    began = aws.clock.monotonic()
    while True:
        page = await aws.call(
            "cloudformation",
            "DescribeChangeSet",
            StackName=stack,
            ChangeSetName=identifier,
            **token,
        )
        if page["Status"] in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            if aws.clock.monotonic() - began > _PATIENCE:
                raise StackFailed(f"the change set of {stack} does not come about")
            await aws.clock.sleep(_LOOK_AGAIN)
            continue
        yield page
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


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
        if aws.clock.monotonic() - began > _PATIENCE:
            raise StackFailed(
                f"{stack} is still {status} after {_PATIENCE / 60:g} minutes",
                remedy="CloudFormation goes on by itself; buildonce env plan shows when it is over",
            )
        await aws.clock.sleep(_LOOK_AGAIN)
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


async def _drift(aws: AwsSession, stack: str) -> list[str]:
    started = await aws.call("cloudformation", "DetectStackDrift", StackName=stack)
    began = aws.clock.monotonic()
    while True:
        found = await aws.call(
            "cloudformation",
            "DescribeStackDriftDetectionStatus",
            StackDriftDetectionId=started["StackDriftDetectionId"],
        )
        if found["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        if aws.clock.monotonic() - began > _PATIENCE:
            return ["it could not be found out in time"]
        await aws.clock.sleep(_LOOK_AGAIN)
    if found["DetectionStatus"] == "DETECTION_FAILED":
        return [
            f"it could not be found out: {found.get('DetectionStatusReason', 'no reason given')}"
        ]
    if found.get("StackDriftStatus") != "DRIFTED":
        return []
    answer = await aws.call(
        "cloudformation",
        "DescribeStackResourceDrifts",
        StackName=stack,
        StackResourceDriftStatusFilters=["MODIFIED", "DELETED"],
    )
    told: list[str] = []
    for one in answer["StackResourceDrifts"]:
        name, ours = one["LogicalResourceId"], _MOVED_BY_ROLLOUTS.get(one["LogicalResourceId"], ())
        if one["StackResourceDriftStatus"] == "DELETED":
            told.append(f"{name} {one['ResourceType']} was deleted")
            continue
        paths = [
            difference["PropertyPath"]
            for difference in one.get("PropertyDifferences", ())
            if not difference["PropertyPath"].startswith(tuple(ours) or ("\0",))
        ]
        if paths:
            told.append(f"{name} {one['ResourceType']}: {', '.join(sorted(paths))}")
    return told


async def _stack(aws: AwsSession, stack: str) -> dict[str, Any] | None:
    try:
        answer = await aws.call("cloudformation", "DescribeStacks", StackName=stack)
    except AwsRefused as error:
        if error.code == "ValidationError" and "does not exist" in error.reason:
            return None
        raise
    found: dict[str, Any] = answer["Stacks"][0]
    return found


async def _discard(aws: AwsSession, planned: Planned) -> None:
    await aws.call(
        "cloudformation",
        "DeleteChangeSet",
        StackName=planned.stack,
        ChangeSetName=planned.change_set,
    )


def _must_be_calm(found: Mapping[str, Any], environment: EnvironmentConfig) -> None:
    status = found["StackStatus"]
    if status.endswith("_IN_PROGRESS"):
        remedy = "wait for it to end"
    elif status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"):
        name = found["StackName"]
        remedy = f"its creation failed: aws cloudformation delete-stack --stack-name {name}"
    elif status == "UPDATE_ROLLBACK_FAILED":
        remedy = (
            "aws cloudformation continue-update-rollback --stack-name "
            f"{found['StackName']}, once what its events name is put right"
        )
    else:
        return
    reason = found.get("StackStatusReason")
    because = f": {reason}" if reason else ""
    raise NotPrepared(
        f"{found['StackName']} of {environment.name} is {status}{because}", remedy=remedy
    )


def _outputs(found: Mapping[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())}


def _nothing(reason: str) -> bool:
    return "didn't contain changes" in reason or "No updates are to be performed" in reason


def _change(one: Mapping[str, Any]) -> Change:
    properties = {
        detail["Target"]["Name"]
        for detail in one.get("Details", ())
        if detail.get("Target", {}).get("Name")
    }
    return Change(
        one["Action"],
        one["LogicalResourceId"],
        one["ResourceType"],
        one.get("Replacement", ""),
        tuple(sorted(properties)),
    )
