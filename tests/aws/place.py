"""One account in one region: what its services have in common, and the small ones among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .clock import SimulatedClock
from .ecs import Ecs
from .functions import Functions
from .registries import Ecr
from .stacks import Stacks
from .wire import Call, ServiceError

if TYPE_CHECKING:
    from .simulation import Simulation


class Place:
    """An account in a region, and what is wrong with it."""

    def __init__(self, simulation: Simulation, account: str, region: str) -> None:
        self.simulation = simulation
        self.account = account
        self.region = region
        self.clusters: set[str] = set()
        self.ecs = Ecs(self)
        self.functions = Functions(self)
        self.balancer = Balancer(self)
        self.alarms = Alarms(self)
        self.stacks = Stacks(self)
        self.ecr = Ecr(self)
        self.lies_about_digest: str | None = None
        self.ill: set[str] = set()
        self.unpullable: set[str] = set()

    @property
    def clock(self) -> SimulatedClock:
        return self.simulation.clock

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    @property
    def registry(self) -> str | None:
        """host:port of the account's own registry, where it has a real one."""
        return self.simulation.registries.get(self.account)

    def refusal(self, image: str) -> str | None:
        """Why the image cannot be pulled; None when it can."""
        digest = image.rpartition("@")[2]
        if digest in self.unpullable:
            return f"CannotPullContainerError: {image}: not found"
        return self.simulation.pull(self.account, image)

    def unhealthy(self, image: str) -> bool:
        """Whether what the image holds does not answer its health check."""
        return image.rpartition("@")[2] in self.ill

    def serving(self, name: str) -> dict[str, float]:
        """Share of the traffic of an environment ("project-environment") by digest."""
        self.ecs.advance()
        if name in self.functions.functions:
            return self.functions.serving(name)
        if name in self.ecs.services:
            return self.ecs.serving(name)
        return self.balancer.serving(name)

    def variables(self, digest: str) -> dict[str, str]:
        """The environment variables with which the newest release of that digest was started."""
        return {**self.functions.variables(digest), **self.ecs.variables(digest)}


@dataclass
class Rule:
    arn: str
    weights: dict[str, int]
    tags: dict[str, str] = field(default_factory=dict)


class Balancer:
    """Elastic Load Balancing: weighted rules, and targets as healthy as ECS's tasks are."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.groups: dict[str, str] = {}
        self.rules: dict[str, Rule] = {}

    def serving(self, name: str) -> dict[str, float]:
        """Share of its rule's traffic by digest; a group without tasks answers nobody."""
        shares: dict[str, float] = {}
        for rule in (one for one in self.rules.values() if f"/app/{name}/" in one.arn):
            for group, weight in rule.weights.items():
                for digest in self._digests(group):
                    if weight:
                        shares[digest] = shares.get(digest, 0.0) + weight
        return shares

    def _digests(self, group: str) -> set[str]:
        return {
            self.place.ecs.digest(revision.definition)
            for service in self.place.ecs.services.values()
            for revision in service.revisions.values()
            if revision.healthy and revision.balancers[0]["targetGroupArn"] == group
        }

    def DescribeRules(self, call: Call) -> dict[str, Any]:
        return {"Rules": [self._shown(self._rule(arn)) for arn in call.parameters["RuleArns"]]}

    def ModifyRule(self, call: Call) -> dict[str, Any]:
        rule = self._rule(call.parameters["RuleArn"])
        (action,) = call.parameters["Actions"]
        groups = action["ForwardConfig"]["TargetGroups"]
        for group in groups:
            if group["TargetGroupArn"] not in self.groups:
                raise ServiceError("TargetGroupNotFound", "One or more target groups not found")
            if not 0 <= group["Weight"] <= 999:
                raise ServiceError("ValidationError", "Target group weight must be 0 to 999")
        rule.weights = {group["TargetGroupArn"]: group["Weight"] for group in groups}
        return {"Rules": [self._shown(rule)]}

    def DescribeTags(self, call: Call) -> dict[str, Any]:
        return {
            "TagDescriptions": [
                {
                    "ResourceArn": arn,
                    "Tags": [{"Key": k, "Value": v} for k, v in self._rule(arn).tags.items()],
                }
                for arn in call.parameters["ResourceArns"]
            ]
        }

    def AddTags(self, call: Call) -> dict[str, Any]:
        for arn in call.parameters["ResourceArns"]:
            self._rule(arn).tags.update({t["Key"]: t["Value"] for t in call.parameters["Tags"]})
        return {}

    def DescribeTargetHealth(self, call: Call) -> dict[str, Any]:
        group = call.parameters["TargetGroupArn"]
        if group not in self.groups:
            raise ServiceError("TargetGroupNotFound", "One or more target groups not found")
        healthy = sum(
            revision.healthy
            for service in self.place.ecs.services.values()
            for revision in service.revisions.values()
            if revision.balancers and revision.balancers[0]["targetGroupArn"] == group
        )
        return {
            "TargetHealthDescriptions": [
                {
                    "Target": {"Id": f"10.0.0.{n}", "Port": 8080},
                    "TargetHealth": {"State": "healthy"},
                }
                for n in range(healthy)
            ]
        }

    def _rule(self, arn: str) -> Rule:
        if arn not in self.rules:
            raise ServiceError("RuleNotFound", "One or more rules not found")
        return self.rules[arn]

    @staticmethod
    def _shown(rule: Rule) -> dict[str, Any]:
        groups = [{"TargetGroupArn": arn, "Weight": w} for arn, w in rule.weights.items()]
        return {
            "RuleArn": rule.arn,
            "Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
        }


class Alarms:
    """CloudWatch: alarms whose state a test sets, and metrics that it writes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.states: dict[str, tuple[str, str]] = {}
        self.points: list[tuple[str, str, Mapping[str, str], datetime, float]] = []

    def state(self, name: str) -> str:
        return self.states.get(name, ("INSUFFICIENT_DATA", ""))[0]

    def set(self, name: str, state: str, reason: str = "threshold crossed") -> None:
        """Put an alarm into OK, ALARM or INSUFFICIENT_DATA."""
        self.states[name] = (state, reason)

    def measure(self, namespace: str, name: str, value: float, **dimensions: str) -> None:
        """Write one sample now."""
        self.points.append((namespace, name, dimensions, self.place.clock.now(), value))

    def DescribeAlarms(self, call: Call) -> dict[str, Any]:
        names = call.parameters.get("AlarmNames", list(self.states))
        return {
            "MetricAlarms": [
                {
                    "AlarmName": name,
                    "AlarmArn": self.place.arn("cloudwatch", f"alarm:{name}"),
                    "StateValue": self.states[name][0],
                    "StateReason": self.states[name][1],
                }
                for name in names
                if name in self.states
            ]
        }

    def GetMetricStatistics(self, call: Call) -> dict[str, Any]:
        p = call.parameters
        wanted = {d["Name"]: d["Value"] for d in p.get("Dimensions", ())}
        periods: dict[int, list[float]] = {}
        for namespace, name, dimensions, at, value in self.points:
            same = (namespace, name, dict(dimensions)) == (p["Namespace"], p["MetricName"], wanted)
            if same and p["StartTime"] <= at < p["EndTime"]:
                periods.setdefault(
                    int((at - p["StartTime"]).total_seconds()) // p["Period"], []
                ).append(value)
        points = []
        for values in periods.values():
            figures = {
                "SampleCount": float(len(values)),
                "Sum": sum(values),
                "Average": sum(values) / len(values),
                "Minimum": min(values),
                "Maximum": max(values),
            }
            points.append({key: figures[key] for key in p["Statistics"]})
        return {"Label": p["MetricName"], "Datapoints": points}
