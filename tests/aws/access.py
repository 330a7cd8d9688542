"""Who may do what: roles with trust and policies, evaluated for each call as IAM does.

An allow must match the action and the resource (and its conditions); whatever is not allowed is
denied. The policies are those that buildonce itself renders, so a call that they forget fails here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from .wire import Call

_PREFIXES = {"elbv2": "elasticloadbalancing"}


@dataclass
class Role:
    """A role of an account.

    Attributes:
        policy: its policy document.
        trusted: ARNs that may assume it.
        external_id: that they must give.
    """

    arn: str
    policy: Mapping[str, Any]
    trusted: Sequence[str] = ()
    external_id: str | None = None


@dataclass(frozen=True)
class Session:
    """Credentials that were given out."""

    account: str
    arn: str
    role: Role | None
    ends: datetime | None = None


@dataclass
class Used:
    """Which statements of which calls were needed: what the tests of roles read."""

    calls: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, role: str, action: str, resource: str) -> None:
        self.calls.setdefault((role, action), set()).add(resource)


def action_of(call: Call) -> str:
    """The IAM action of a call; of the services here it has the operation's own name."""
    return f"{_PREFIXES.get(call.service, call.service)}:{call.operation}"


def resources_of(call: Call, account: str) -> list[str]:
    """The ARNs that IAM compares with the statements' resources; "*" where an action has none."""
    p, region = call.parameters, call.region

    def arn(service: str, resource: str) -> str:
        return f"arn:aws:{service}:{region}:{account}:{resource}"

    if call.service == "ecs":
        return list(_ecs(call, arn))
    if call.service == "lambda":
        name = p.get("FunctionName") or p.get("Resource", "")
        name = name.rpartition(":function:")[2].partition(":")[0]
        return [arn("lambda", f"function:{name}")]
    if call.service == "elbv2":
        if call.operation.startswith("Describe"):
            return ["*"]
        return [p["RuleArn"]] if "RuleArn" in p else list(p.get("ResourceArns", ["*"]))
    if call.service == "cloudformation":
        name = p.get("StackName", "*")
        return [name] if name.startswith("arn:") else [arn("cloudformation", f"stack/{name}/*")]
    if call.service == "dynamodb":
        return [arn("dynamodb", f"table/{p['TableName']}")]
    if call.service == "ecr" and "repositoryName" in p:
        return [arn("ecr", f"repository/{p['repositoryName']}")]
    return ["*"]


def _ecs(call: Call, arn: Any) -> Iterator[str]:
    p = call.parameters
    cluster = str(p.get("cluster", "")).rpartition("/")[2]
    if call.operation in ("DescribeTaskDefinition", "ListServiceDeployments"):
        yield (
            "*"
            if call.operation == "DescribeTaskDefinition"
            else _service(arn, cluster, p["service"])
        )
    elif call.operation == "RegisterTaskDefinition":
        yield arn("ecs", f"task-definition/{p['family']}:*")
    elif call.operation == "DescribeServices":
        yield from (_service(arn, cluster, one) for one in p["services"])
    elif call.operation in ("CreateService", "UpdateService", "DeleteService"):
        yield _service(arn, cluster, p.get("serviceName") or p["service"])
    elif call.operation in ("TagResource", "ListTagsForResource"):
        yield p["resourceArn"]
    elif call.operation == "DescribeTasks":
        yield from p["tasks"]
    elif "serviceDeploymentArn" in p:
        yield p["serviceDeploymentArn"]
    elif "serviceDeploymentArns" in p:
        yield from p["serviceDeploymentArns"]
    elif "serviceRevisionArns" in p:
        yield from p["serviceRevisionArns"]
    else:
        yield "*"


def _service(arn: Any, cluster: str, service: str) -> str:
    return str(arn("ecs", f"service/{cluster}/{service.rpartition('/')[2]}"))


def allows(
    policy: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]
) -> bool:
    """Whether a policy document allows the action on the resource."""
    allowed = False
    for statement in policy["Statement"]:
        if not _matches(statement["Action"], action):
            continue
        if not _matches(statement["Resource"], resource):
            continue
        if not _conditions(statement.get("Condition", {}), context):
            continue
        if statement["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def _matches(patterns: str | Sequence[str], value: str) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    # Brackets have no meaning in IAM.
    return any(fnmatchcase(value, re.sub(r"([\[\]])", r"[\1]", one)) for one in listed)


def _conditions(conditions: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    for operator, tests in conditions.items():
        for key, wanted in tests.items():
            value = context.get(key)
            if operator in ("StringEquals", "ArnEquals"):
                if value is None or value not in ([wanted] if isinstance(wanted, str) else wanted):
                    return False
            elif operator in ("StringLike", "ArnLike"):
                if value is None or not _matches(wanted, value):
                    return False
            else:
                raise AssertionError(f"a condition that is not evaluated: {operator}")
    return True


def passed_roles(call: Call) -> list[tuple[str, str]]:
    """(role, service) that a call hands to a service, for which iam:PassRole is needed too."""
    p = call.parameters
    if call.operation == "RegisterTaskDefinition":
        roles = [p.get("executionRoleArn"), p.get("taskRoleArn")]
        return [(role, "ecs-tasks.amazonaws.com") for role in roles if role]
    if call.service == "ecs" and call.operation in ("CreateService", "UpdateService"):
        roles = [
            one.get("advancedConfiguration", {}).get("roleArn")
            for one in p.get("loadBalancers", ())
        ]
        return [(role, "ecs.amazonaws.com") for role in roles if role]
    if call.service == "lambda" and p.get("Role"):
        return [(p["Role"], "lambda.amazonaws.com")]
    if call.service == "cloudformation" and p.get("RoleARN"):
        return [(p["RoleARN"], "cloudformation.amazonaws.com")]
    return []
