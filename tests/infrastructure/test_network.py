"""The network's stack: what is private has no way in."""

from __future__ import annotations

import ipaddress
from itertools import combinations

import pytest

from tests.infrastructure.rendering import BadParameter, render

SUBNET, ROUTE = "AWS::EC2::Subnet", "AWS::EC2::Route"


@pytest.mark.parametrize("addresses", ["10.20.0.0/16", "192.168.4.0/24"])
def test_its_subnets_lie_within_the_range_and_beside_each_other(addresses: str) -> None:
    stack = render("network", Name="shop", Range=addresses)
    blocks = [ipaddress.ip_network(subnet["CidrBlock"]) for subnet in stack.of(SUBNET)]
    assert len(blocks) == 4
    whole = ipaddress.ip_network(stack.one("AWS::EC2::VPC")["CidrBlock"])
    assert str(whole) == addresses
    assert all(whole.supernet_of(block) for block in blocks)  # type: ignore[arg-type]
    assert not [pair for pair in combinations(blocks, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("addresses", ["10.0.0.0/8", "10.0.0.0/25", "fd00::/48", "0.0.0.0/0"])
def test_a_range_that_is_too_wide_or_too_narrow_is_refused(addresses: str) -> None:
    with pytest.raises(BadParameter, match="Range"):
        render("network", Name="shop", Range=addresses)


def test_both_kinds_of_subnets_are_in_two_zones() -> None:
    stack = render("network", Name="shop")
    zones: dict[str, set[str]] = {}
    for output in ("PublicSubnets", "PrivateSubnets"):
        for reference in stack.outputs[output]["Fn::Join"][1]:
            zone = stack.resources[reference["Ref"]]["AvailabilityZone"]
            zones.setdefault(output, set()).add(str(zone))
    assert {output: len(found) for output, found in zones.items()} == {
        "PublicSubnets": 2,
        "PrivateSubnets": 2,
    }


def test_private_subnets_reach_out_by_the_gateway_that_lets_nothing_in() -> None:
    stack = render("network", Name="shop")
    ways = {}
    for association in stack.of("AWS::EC2::SubnetRouteTableAssociation"):
        table = association["RouteTableId"]
        (route,) = (route for route in stack.of(ROUTE) if route["RouteTableId"] == table)
        ways[association["SubnetId"]["Ref"]] = route
    for reference in stack.outputs["PrivateSubnets"]["Fn::Join"][1]:
        way = ways.pop(reference["Ref"])
        assert way["NatGatewayId"] == {"Ref": "Nat"}
        assert "GatewayId" not in way.properties
    # All others are public, the one of the address translation among them.
    assert {way["GatewayId"]["Ref"] for way in ways.values()} == {"Gateway"}
    assert stack.resources["Nat"]["SubnetId"]["Ref"] in ways


def test_nothing_gets_a_public_address_by_itself_and_nothing_is_let_in() -> None:
    stack = render("network", Name="shop")
    assert not [s.name for s in stack.of(SUBNET) if s.properties.get("MapPublicIpOnLaunch")]
    assert not stack.of("AWS::EC2::SecurityGroupIngress")
    assert not stack.of("AWS::EC2::SecurityGroup")
