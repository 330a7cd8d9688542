"""A CloudFormation template with its parameters filled in: what a stack of it would be made of.

    stack = render("network", Name="shop")
    stack.one("AWS::EC2::VPC")["CidrBlock"]      # "10.20.0.0/16"

What only AWS knows stays as it is written: {"Ref": "Vpc"}. Nothing but PyYAML is needed, so that
these tests run in the stage's container as they do here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).parents[2] / "src/buildonce/delivery/aws/templates"

_NOTHING: Any = object()


class BadParameter(ValueError):
    """CloudFormation would refuse this value before it makes anything."""


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _short(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short)


@dataclass(frozen=True)
class Resource:
    """A resource of a rendered stack."""

    name: str
    kind: str
    properties: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.properties[name]

    @property
    def outlives_its_stack(self) -> bool:
        """Kept when the stack is deleted, and when it is replaced by another one."""
        policies = ("DeletionPolicy", "UpdateReplacePolicy")
        return all(self.attributes.get(name) == "Retain" for name in policies)


@dataclass(frozen=True)
class Stack:
    """A rendered template."""

    resources: dict[str, Resource]
    outputs: dict[str, Any]

    def of(self, kind: str) -> list[Resource]:
        """All resources of a kind, in the template's order."""
        return [one for one in self.resources.values() if one.kind == kind]

    def one(self, kind: str) -> Resource:
        """The only resource of a kind."""
        (found,) = self.of(kind)
        return found

    def statements(self, role: str) -> list[dict[str, Any]]:
        """What a role may do."""
        policies = self.resources[role].properties.get("Policies", [])
        assert "ManagedPolicyArns" not in self.resources[role].properties
        return [one for p in policies for one in p["PolicyDocument"]["Statement"]]

    def everywhere(self) -> set[str]:
        """The actions that some role may do on every resource of the account."""
        found: set[str] = set()
        for role in self.of("AWS::IAM::Role"):
            for statement in self.statements(role.name):
                assert statement["Effect"] == "Allow"
                assert not [a for a in as_list(statement["Action"]) if "*" in a], role.name
                if "*" in as_list(statement["Resource"]):
                    found.update(as_list(statement["Action"]))
        return found


def as_list(value: Any) -> list[Any]:
    """IAM takes one thing in place of a list of one."""
    return value if isinstance(value, list) else [value]


def render(template: str, **parameters: str) -> Stack:
    """A template of this project with these parameters.

    Raises:
        BadParameter: one is missing, unknown, or not what the template allows.
    """
    data = _Loader((TEMPLATES / f"{template}.yaml").read_text("utf-8")).get_single_data()
    values = _parameters(data.get("Parameters", {}), parameters)
    rendering = _Rendering(values, data.get("Conditions", {}))
    resources = {}
    for name, one in data["Resources"].items():
        if "Condition" in one and not rendering.condition(one["Condition"]):
            continue
        properties = rendering.value(one.get("Properties", {}))
        resources[name] = Resource(name, one["Type"], properties, one)
    outputs = {name: one["Value"] for name, one in data.get("Outputs", {}).items()}
    return Stack(resources, rendering.value(outputs))


def _parameters(declared: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    if unknown := given.keys() - declared.keys():
        raise BadParameter(f"the template has no {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {}
    for name, one in declared.items():
        if name not in given and "Default" not in one:
            raise BadParameter(f"{name} has no value")
        value = str(given.get(name, one.get("Default")))
        allowed = [str(each) for each in one.get("AllowedValues", [value])]
        if (
            value not in allowed
            or not re.search(one.get("AllowedPattern", ""), value)
            or len(value) > one.get("MaxLength", len(value))
        ):
            raise BadParameter(f"{name} may not be {value!r}")
        lists = one["Type"].startswith("List<") or one["Type"] == "CommaDelimitedList"
        values[name] = [part for part in value.split(",") if part] if lists else value
    return values


class _Rendering:
    def __init__(self, parameters: dict[str, Any], conditions: dict[str, Any]) -> None:
        self._parameters = parameters
        self._conditions = conditions

    def condition(self, name: str) -> bool:
        return bool(self.value(self._conditions[name]))

    def value(self, value: Any) -> Any:
        match value:
            case list():
                return list(self._values(value))
            case {"Ref": "AWS::NoValue"}:
                return _NOTHING
            case {"Ref": str(name)}:
                return self._parameters.get(name, value)
            case {"Fn::If": [str(name), yes, no]}:
                return self.value(yes if self.condition(name) else no)
            case dict() if len(value) == 1 and next(iter(value)).startswith("Fn::"):
                ((function, argument),) = value.items()
                return self._function(function, self.value(argument))
            case dict():
                kept = {key: self.value(inner) for key, inner in value.items()}
                return {key: inner for key, inner in kept.items() if inner is not _NOTHING}
            case _:
                return value

    def _values(self, values: list[Any]) -> Iterator[Any]:
        for value in values:
            if (found := self.value(value)) is not _NOTHING:
                yield found

    def _function(self, function: str, argument: Any) -> Any:
        match function, argument:
            case "Fn::Equals", [left, right]:
                return left == right
            case "Fn::Not", [condition]:
                return not condition
            case "Fn::Select", [index, list(values)]:
                return values[int(index)]
            case "Fn::Cidr", [str(block), number, bits]:
                parts = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
                return [str(part) for part, _ in zip(parts, range(int(number)), strict=False)]
            case "Fn::Sub", str(text):
                return self._filled(text, {})
            case "Fn::Sub", [str(text), dict(more)]:
                return self._filled(text, more)
            case "Fn::Join", [str(between), list(values)] if all(
                isinstance(v, str) for v in values
            ):
                return between.join(values)
            case _:
                return {function: argument}

    def _filled(self, text: str, more: dict[str, Any]) -> str:
        known = {**self._parameters, **more}
        return re.sub(r"\$\{([^}]+)\}", lambda m: str(known.get(m[1], m[0])), text)
