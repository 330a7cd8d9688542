"""Policy documents in the making: statements, and the names that they are scoped by.

scope = Scope(production, "shop", "aws")
document([allow("Stack", ["cloudformation:DescribeStacks"], scope.stack("service"))])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildonce.config import EnvironmentConfig

Document = dict[str, Any]


class Scope:
    """Names and ARNs of one place.

    Args:
        environment: a place of one region.
        project: whose environment it is.
        partition: "aws", or another one of AWS's worlds.
    """

    def __init__(self, environment: EnvironmentConfig, project: str, partition: str) -> None:
        self.environment = environment
        self.name = f"{project}-{environment.name}"
        self.account = environment.account_config.id
        self.region = environment.region or ""
        self.partition = partition

    def arn(self, service: str, resource: str, *, account: str | None = None) -> str:
        account = account or self.account
        return f"arn:{self.partition}:{service}:{self.region}:{account}:{resource}"

    def role(self, kind: str) -> str:
        name = f"{self.name}-{self.region}-{kind}"
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def stack(self, name: str) -> str:
        return self.arn("cloudformation", f"stack/{self.name}-{name}/*")


def document(statements: Sequence[dict[str, Any]]) -> Document:
    """A policy of these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(
    sid: str,
    actions: Sequence[str],
    resources: str | Sequence[str],
    condition: dict[str, Any] | None = None,
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": sorted(actions),
        "Resource": resources if isinstance(resources, str) else sorted(resources),
    }
    if condition is not None:
        statement["Condition"] = condition
    return statement


def pass_role(sid: str, roles: str | Sequence[str], service: str) -> dict[str, Any]:
    condition = {"StringEquals": {"iam:PassedToService": service}}
    return allow(sid, ["iam:PassRole"], roles, condition)
