"""What would become of a stack, found out by a change set: nothing is changed by asking."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from buildonce.delivery.aws.errors import NotPrepared
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.errors import DeliveryError, TargetFailed

LOOK_AGAIN = 3.0
"""Seconds between two looks at something that CloudFormation is doing."""

PATIENCE = 45 * 60.0
"""Seconds that it may take."""


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


async def propose(
    aws: AwsSession,
    stack: str,
    found: Mapping[str, Any] | None,
    *,
    body: str,
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
    execution_role: str | None = None,
) -> Planned:
    """A change set for one stack; none is left where nothing changes.

    Args:
        stack: its name.
        found: the stack as it is now; None where there is none.
        body, parameters, tags: what it should be made of.
        execution_role: ARN by which CloudFormation works; the caller's own rights when None.

    Raises:
        StackFailed: there is no way from here to there.
        NotPrepared: its last change has not ended well.
    """
    exists = found is not None and found["StackStatus"] != "REVIEW_IN_PROGRESS"
    if found is not None and exists:
        _must_be_calm(found)
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
        Tags=[{"Key": f"buildonce:{key}", "Value": value} for key, value in tags.items()],
        **role,
    )
    proposed = Planned(stack, exists, change_set=made["Id"])
    try:
        aws.must_be_here(made["StackId"], f"the stack {stack}")
        changes = await _changes(aws, stack, made["Id"])
    except BaseException:
        # Nobody will execute it: it is not left behind, by Ctrl-C neither.
        with anyio.CancelScope(shield=True), suppress(DeliveryError):
            await discard(aws, proposed)
        raise
    if not changes:
        await discard(aws, proposed)
        return Planned(stack, exists)
    return replace(proposed, changes=changes)


async def _changes(aws: AwsSession, stack: str, identifier: str) -> tuple[Change, ...]:
    changes: list[Change] = []
    async for page in _change_set(aws, stack, identifier):
        if page["Status"] == "FAILED":
            reason = page.get("StatusReason", "")
            if _nothing(reason):
                return ()
            raise StackFailed(
                f"{stack} cannot be changed so: {reason}",
                remedy="correct the environment's parameters",
            )
        changes += [_change(one["ResourceChange"]) for one in page.get("Changes", ())]
    return tuple(changes)


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
            if aws.clock.monotonic() - began > PATIENCE:
                raise StackFailed(f"the change set of {stack} does not come about")
            await aws.clock.sleep(LOOK_AGAIN)
            continue
        yield page
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


async def discard(aws: AwsSession, planned: Planned) -> None:
    """Remove the change set; the stack stays as it is."""
    with anyio.CancelScope(shield=True):
        await aws.call(
            "cloudformation",
            "DeleteChangeSet",
            StackName=planned.stack,
            ChangeSetName=planned.change_set,
        )


def _must_be_calm(found: Mapping[str, Any]) -> None:
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
    raise NotPrepared(f"the stack {found['StackName']} is {status}{because}", remedy=remedy)


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
