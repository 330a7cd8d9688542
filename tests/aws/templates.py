"""CloudFormation's templates, evaluated for real: parameters, conditions, intrinsic functions."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from .wire import ServiceError

if TYPE_CHECKING:
    from .place import Place
    from .stacks import Stack

_NOTHING = object()


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _short(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    name = tag if tag in ("Ref", "Condition") else f"Fn::{tag}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if tag == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


_Loader.add_multi_constructor("!", _short)


@cache
def parsed(template: str) -> dict[str, Any]:
    """A template as data."""
    found: dict[str, Any] = _Loader(template).get_single_data()
    return found


class Evaluation:
    """The values of one template under one set of parameters."""

    def __init__(
        self, place: Place, stack: Stack, data: dict[str, Any], given: dict[str, str]
    ) -> None:
        self.place, self.stack, self.data = place, stack, data
        declared = data.get("Parameters", {})
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise ServiceError(
                "ValidationError", f"Parameters: {unknown} do not exist in the template"
            )
        self.parameters: dict[str, Any] = {}
        missing = []
        for name, one in declared.items():
            value = given.get(name, one.get("Default", _NOTHING))
            if value is _NOTHING:
                missing.append(name)
            elif one["Type"].startswith("List<") or one["Type"] == "CommaDelimitedList":
                self.parameters[name] = [part for part in str(value).split(",") if part]
            else:
                self.parameters[name] = str(value)
        if missing:
            raise ServiceError("ValidationError", f"Parameters: {missing} must have values")

    def condition(self, name: str) -> bool:
        return bool(self.value(self.data["Conditions"][name]))

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [v for v in (self.value(one) for one in value) if v is not _NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "Ref" or key.startswith("Fn::"):
                return getattr(self, f"_{key.removeprefix('Fn::').lower()}")(inner)
            if key == "Condition" and isinstance(inner, str):
                return self.condition(inner)
        found = {key: self.value(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner is not _NOTHING}

    def _ref(self, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        known = {
            "AWS::Region": self.place.region,
            "AWS::AccountId": self.place.account,
            "AWS::Partition": "aws",
            "AWS::StackName": self.stack.name,
            "AWS::NoValue": _NOTHING,
        }
        return known[name] if name in known else self._of(name)

    def _of(self, name: str) -> str:
        one = self.data["Resources"][name]
        properties = self.value(one.get("Properties", {}))
        return physical(self.place, self.stack.name, name, one["Type"], properties)

    def _getatt(self, path: list[str]) -> str:
        name, attribute = path[0], path[1]
        kind, physical = self.data["Resources"][name]["Type"], self._of(name)
        if kind == "AWS::IAM::Role" and attribute == "Arn":
            return f"arn:aws:iam::{self.place.account}:role/{physical}"
        if kind == "AWS::Logs::LogGroup" and attribute == "Arn":
            return self.place.arn("logs", f"log-group:{physical}:*")
        if attribute == "DNSName":
            if self.place.simulation.door is not None:
                return self.place.simulation.door(self.place, self.stack.name.rpartition("-")[0])
            return f"{self.stack.name}.{self.place.region}.elb.example"
        return (
            f"{physical.rpartition(':')[2]}"
            if attribute.endswith("FullName")
            else f"{physical}.{attribute}"
        )

    def _sub(self, inner: Any) -> str:
        text, names = (inner, {}) if isinstance(inner, str) else inner

        def one(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in names:
                return str(self.value(names[name]))
            return str(self._getatt(name.split(".", 1)) if "." in name else self._ref(name))

        return re.sub(r"\$\{([^}!]+)\}", one, text)

    def _join(self, inner: Any) -> str:
        return str(inner[0]).join(str(one) for one in self.value(inner[1]))

    def _if(self, inner: Any) -> Any:
        return self.value(inner[1] if self.condition(inner[0]) else inner[2])

    def _not(self, inner: Any) -> bool:
        return not self.value(inner[0])

    def _equals(self, inner: Any) -> bool:
        return bool(self.value(inner[0]) == self.value(inner[1]))

    def _select(self, inner: Any) -> Any:
        return self.value(inner[1])[int(inner[0])]

    def _getazs(self, _: Any) -> list[str]:
        return [f"{self.place.region}{letter}" for letter in "abc"]

    def _cidr(self, inner: Any) -> list[str]:
        base = str(self.value(inner[0])).partition("/")[0].rsplit(".", 2)[0]
        return [f"{base}.{n}.0/26" for n in range(int(inner[1]))]


def physical(place: Place, stack: str, name: str, kind: str, properties: dict[str, Any]) -> str:
    mark = hashlib.sha256(f"{place.account}{place.region}{stack}{name}".encode()).hexdigest()[:16]
    short = kind.rpartition("::")[2].lower()
    if kind.endswith("::TargetGroup"):
        return place.arn("elasticloadbalancing", f"targetgroup/{properties['Name']}/{mark}")
    if kind.endswith("::LoadBalancer"):
        return place.arn("elasticloadbalancing", f"loadbalancer/app/{properties['Name']}/{mark}")
    if kind.endswith("::Listener"):
        tail = str(properties["LoadBalancerArn"]).partition("loadbalancer/")[2]
        return place.arn("elasticloadbalancing", f"listener/{tail}/{mark}")
    if kind.endswith("::ListenerRule"):
        tail = str(properties["ListenerArn"]).partition("listener/")[2]
        return place.arn("elasticloadbalancing", f"listener-rule/{tail}/{mark}")
    for key in ("ClusterName", "RoleName", "LogGroupName", "AlarmName", "TableName"):
        if key in properties:
            return str(properties[key])
    return f"{short}-{mark}"
