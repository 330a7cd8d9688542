"""CloudFormation that fails as it does: change sets, events, rollback, drift, by the test's clock.

Templates are evaluated for real (parameters, conditions, intrinsic functions), so that a wrong
reference fails here too. Of the resources only those exist that releases use: clusters, target
groups, rules, alarms, roles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .templates import Evaluation, parsed, physical
from .wire import Call, ServiceError

if TYPE_CHECKING:
    from .place import Place

_TAKES = 60.0  # seconds that a change of a stack takes


@dataclass
class Stack:
    name: str
    id: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str = ""
    template: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    resources: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    tags: list[dict[str, str]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    then: tuple[float, str] | None = None
    drifted: dict[str, list[dict[str, str]]] = field(default_factory=dict)


@dataclass
class ChangeSet:
    id: str
    name: str
    stack: str
    kind: str
    template: str
    parameters: dict[str, str]
    tags: list[dict[str, str]]
    changes: list[dict[str, Any]]
    status: str = "CREATE_COMPLETE"
    reason: str = ""


class Stacks:
    """The CloudFormation of one account and region.

    Attributes:
        fail_on: logical ids whose creation or change fails, with the reason.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stacks: dict[str, Stack] = {}
        self.sets: dict[str, ChangeSet] = {}
        self.fail_on: dict[str, str] = {}
        self.numbers = 0

    def make(self, name: str, template: str, parameters: dict[str, str]) -> dict[str, str]:
        """A stack that is there already; returns its outputs."""
        stack = self._new(name)
        self._build(stack, template, parameters)
        stack.status = "CREATE_COMPLETE"
        return stack.outputs

    def CreateChangeSet(self, call: Call) -> dict[str, Any]:
        p = call.parameters
        name, kind = p["StackName"], p.get("ChangeSetType", "UPDATE")
        known = self._alive(name)
        if kind == "CREATE" and known is not None and known.status != "REVIEW_IN_PROGRESS":
            raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
        if kind == "UPDATE" and known is None:
            raise ServiceError("ValidationError", f"Stack [{name}] does not exist")
        if known is not None and known.status.endswith("_IN_PROGRESS") and kind == "UPDATE":
            raise ServiceError("ValidationError", f"Stack is in {known.status} state")
        stack = known or self._new(name)
        values = {}
        for one in p.get("Parameters", ()):
            old = stack.parameters.get(one["ParameterKey"], "")
            values[one["ParameterKey"]] = (
                old if one.get("UsePreviousValue") else one["ParameterValue"]
            )
        if "RoleName" in p["TemplateBody"] and "CAPABILITY_NAMED_IAM" not in p.get(
            "Capabilities", ()
        ):
            raise ServiceError(
                "InsufficientCapabilitiesException",
                "Requires capabilities : [CAPABILITY_NAMED_IAM]",
            )
        after, _ = self._evaluated(stack, p["TemplateBody"], values)
        changes = _changes(stack.resources, after)
        self.numbers += 1
        identifier = self.place.arn(
            "cloudformation", f"changeSet/{p['ChangeSetName']}/{self.numbers}"
        )
        one = ChangeSet(
            identifier,
            p["ChangeSetName"],
            name,
            kind,
            p["TemplateBody"],
            values,
            p.get("Tags", []),
            changes,
        )
        if not changes:
            one.status = "FAILED"
            one.reason = "The submitted information didn't contain changes."
        self.sets[identifier] = one
        return {"Id": identifier, "StackId": stack.id}

    def DescribeChangeSet(self, call: Call) -> dict[str, Any]:
        one = self._set(call)
        return {
            "ChangeSetName": one.name,
            "ChangeSetId": one.id,
            "StackName": one.stack,
            "Status": one.status,
            "StatusReason": one.reason,
            "ExecutionStatus": "AVAILABLE" if one.status == "CREATE_COMPLETE" else "UNAVAILABLE",
            "Changes": one.changes,
            "Parameters": [
                {"ParameterKey": k, "ParameterValue": v} for k, v in one.parameters.items()
            ],
        }

    def DeleteChangeSet(self, call: Call) -> dict[str, Any]:
        one = self._set(call)
        del self.sets[one.id]
        return {}

    def ExecuteChangeSet(self, call: Call) -> dict[str, Any]:
        one = self._set(call)
        stack = self._stack(one.stack)
        if one.status != "CREATE_COMPLETE":
            raise ServiceError("InvalidChangeSetStatus", f"ChangeSet is {one.status}")
        verb = one.kind
        del self.sets[one.id]
        self._event(stack, stack.name, "AWS::CloudFormation::Stack", f"{verb}_IN_PROGRESS")
        touched = [change["ResourceChange"]["LogicalResourceId"] for change in one.changes]
        broken = next((name for name in touched if name in self.fail_on), None)
        stack.status = f"{verb}_IN_PROGRESS"
        until = self.place.clock.monotonic() + _TAKES
        if broken is not None:
            reason = self.fail_on[broken]
            kind = parsed(one.template)["Resources"][broken]["Type"]
            self._event(stack, broken, kind, f"{verb}_FAILED", reason)
            stack.then = (
                until,
                "ROLLBACK_COMPLETE" if verb == "CREATE" else "UPDATE_ROLLBACK_COMPLETE",
            )
            return {}
        self._build(stack, one.template, one.parameters)
        stack.tags = one.tags
        for name in touched:
            if name in stack.resources:
                self._event(stack, name, stack.resources[name][0], f"{verb}_COMPLETE")
        stack.then = (until, f"{verb}_COMPLETE")
        return {}

    def DescribeStacks(self, call: Call) -> dict[str, Any]:
        return {"Stacks": [self._shown(self._stack(call.parameters["StackName"]))]}

    def DescribeStackEvents(self, call: Call) -> dict[str, Any]:
        stack = self._stack(call.parameters["StackName"])
        return {"StackEvents": list(reversed(stack.events))}

    def DetectStackDrift(self, call: Call) -> dict[str, Any]:
        stack = self._stack(call.parameters["StackName"])
        return {"StackDriftDetectionId": f"drift-{stack.name}"}

    def DescribeStackDriftDetectionStatus(self, call: Call) -> dict[str, Any]:
        identifier = call.parameters["StackDriftDetectionId"]
        stack = self._stack(identifier.removeprefix("drift-"))
        return {
            "StackId": stack.id,
            "StackDriftDetectionId": identifier,
            "StackDriftStatus": "DRIFTED" if stack.drifted else "IN_SYNC",
            "DetectionStatus": "DETECTION_COMPLETE",
            "Timestamp": self.place.clock.now(),
        }

    def DescribeStackResourceDrifts(self, call: Call) -> dict[str, Any]:
        stack = self._stack(call.parameters["StackName"])
        return {
            "StackResourceDrifts": [
                {
                    "StackId": stack.id,
                    "LogicalResourceId": name,
                    "ResourceType": stack.resources[name][0],
                    "StackResourceDriftStatus": "MODIFIED",
                    "Timestamp": self.place.clock.now(),
                    "PropertyDifferences": differences,
                }
                for name, differences in stack.drifted.items()
            ]
        }

    # Parts.

    def _new(self, name: str) -> Stack:
        mark = hashlib.sha256(f"{self.place.account}{self.place.region}{name}".encode()).hexdigest()
        stack = Stack(name, self.place.arn("cloudformation", f"stack/{name}/{mark[:12]}"))
        self.stacks[name] = stack
        return stack

    def _alive(self, name: str) -> Stack | None:
        self._advance()
        stack = self.stacks.get(name.split("/")[1] if name.startswith("arn:") else name)
        return stack

    def _stack(self, name: str) -> Stack:
        stack = self._alive(name)
        if stack is None:
            raise ServiceError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    def _set(self, call: Call) -> ChangeSet:
        wanted = call.parameters["ChangeSetName"]
        for one in self.sets.values():
            if wanted in (one.id, one.name):
                return one
        raise ServiceError("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist", 404)

    def _advance(self) -> None:
        for stack in self.stacks.values():
            if stack.then is not None and self.place.clock.monotonic() >= stack.then[0]:
                stack.status, stack.then = stack.then[1], None
                kind = "AWS::CloudFormation::Stack"
                self._event(stack, stack.name, kind, stack.status)

    def _event(self, stack: Stack, logical: str, kind: str, status: str, reason: str = "") -> None:
        event = {
            "StackId": stack.id,
            "EventId": f"{len(stack.events)}",
            "StackName": stack.name,
            "LogicalResourceId": logical,
            "ResourceType": kind,
            "ResourceStatus": status,
            "Timestamp": self.place.clock.now(),
        }
        if reason:
            event["ResourceStatusReason"] = reason
        stack.events.append(event)

    def _shown(self, stack: Stack) -> dict[str, Any]:
        shown = {
            "StackName": stack.name,
            "StackId": stack.id,
            "CreationTime": self.place.clock.now(),
            "StackStatus": stack.status,
            "Parameters": [
                {"ParameterKey": k, "ParameterValue": v} for k, v in stack.parameters.items()
            ],
            "Outputs": [
                {"OutputKey": k, "OutputValue": v} for k, v in sorted(stack.outputs.items())
            ],
            "Tags": stack.tags,
        }
        if stack.reason:
            shown["StackStatusReason"] = stack.reason
        return shown

    def _build(self, stack: Stack, template: str, parameters: dict[str, str]) -> None:
        resources, outputs = self._evaluated(stack, template, parameters)
        stack.template, stack.parameters = template, dict(parameters)
        for name, (kind, properties) in resources.items():
            if stack.resources.get(name) != (kind, properties):
                self._exists(
                    kind, physical(self.place, stack.name, name, kind, properties), properties
                )
        stack.resources, stack.outputs = resources, outputs

    def _exists(self, kind: str, physical: str, properties: dict[str, Any]) -> None:
        place = self.place
        if kind == "AWS::ECS::Cluster":
            place.clusters.add(physical)
        elif kind.endswith("::TargetGroup"):
            place.balancer.groups[physical] = properties["Name"]
        elif kind.endswith("::ListenerRule"):
            from .place import Rule

            groups = properties["Actions"][0]["ForwardConfig"]["TargetGroups"]
            weights = {group["TargetGroupArn"]: int(group["Weight"]) for group in groups}
            tags = {"aws:cloudformation:logical-id": "Rule"}
            place.balancer.rules[physical] = Rule(physical, weights, tags)
        elif kind == "AWS::CloudWatch::Alarm":
            place.alarms.set(physical, "OK")

    def _evaluated(
        self, stack: Stack, template: str, parameters: dict[str, str]
    ) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, str]]:
        data = parsed(template)
        evaluation = Evaluation(self.place, stack, data, parameters)
        resources = {
            name: (one["Type"], evaluation.value(one.get("Properties", {})))
            for name, one in data["Resources"].items()
            if "Condition" not in one or evaluation.condition(one["Condition"])
        }
        outputs = {
            name: str(evaluation.value(one["Value"]))
            for name, one in data.get("Outputs", {}).items()
        }
        return resources, outputs


def _changes(
    before: dict[str, tuple[str, dict[str, Any]]], after: dict[str, tuple[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    changes = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        action = "Add" if name not in before else "Remove" if name not in after else "Modify"
        change: dict[str, Any] = {
            "Action": action,
            "LogicalResourceId": name,
            "ResourceType": (after.get(name) or before[name])[0],
        }
        if action == "Modify":
            old, new = before[name][1], after[name][1]
            change["Replacement"] = "False"
            change["Details"] = [
                {"Target": {"Attribute": "Properties", "Name": key}}
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            ]
        changes.append({"Type": "Resource", "ResourceChange": change})
    return changes
