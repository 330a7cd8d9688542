"""The cluster's stack: one door, and with a certificate it is a closed one."""

from __future__ import annotations

import pytest

from tests.infrastructure.rendering import BadParameter, Stack, render

CERTIFICATE = "arn:aws:acm:eu-west-1:111122223333:certificate/shop"


def cluster(**more: str) -> Stack:
    given = {"Name": "shop", "Vpc": "vpc-1", "PublicSubnets": "subnet-1,subnet-2"}
    return render("cluster", **given, **more)


def ingress(stack: Stack) -> list[tuple[str, str, str]]:
    """Whoever is let in, and to which ports."""
    groups = stack.of("AWS::EC2::SecurityGroup")
    rules = [rule for group in groups for rule in group["SecurityGroupIngress"]]
    return [(rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in rules]


def test_with_a_certificate_there_is_no_plain_http() -> None:
    stack = cluster(Certificate=CERTIFICATE)
    listener = stack.one("AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert listener["Certificates"] == [{"CertificateArn": CERTIFICATE}]
    assert "TLS13" in listener["SslPolicy"]
    assert ingress(stack) == [("0.0.0.0/0", 443, 443)]
    assert stack.outputs["Url"].startswith("https://")


def test_without_one_it_speaks_plain_http_and_says_so() -> None:
    stack = cluster()
    listener = stack.one("AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Port"], listener["Protocol"]) == (80, "HTTP")
    assert not {"SslPolicy", "Certificates"} & listener.properties.keys()
    assert ingress(stack) == [("0.0.0.0/0", 80, 80)]
    assert stack.outputs["Url"].startswith("http://")


def test_callers_are_those_that_the_parameter_names() -> None:
    assert ingress(cluster(Callers="10.0.0.0/8")) == [("10.0.0.0/8", 80, 80)]


@pytest.mark.parametrize("wrong", ["shop.example.test", "arn:aws:iam::1:server-certificate/x"])
def test_what_is_no_certificate_of_acm_is_refused(wrong: str) -> None:
    with pytest.raises(BadParameter, match="Certificate"):
        cluster(Certificate=wrong)


def test_what_no_service_takes_is_answered_503() -> None:
    (action,) = cluster().one("AWS::ElasticLoadBalancingV2::Listener")["DefaultActions"]
    assert action["FixedResponseConfig"]["StatusCode"] == "503"


def test_the_balancer_is_not_deleted_by_mistake_and_drops_malformed_headers() -> None:
    balancer = cluster().one("AWS::ElasticLoadBalancingV2::LoadBalancer")
    attributes = {one["Key"]: one["Value"] for one in balancer["LoadBalancerAttributes"]}
    assert attributes["deletion_protection.enabled"] == "true"
    assert attributes["routing.http.drop_invalid_header_fields.enabled"] == "true"


def test_the_cluster_is_watched() -> None:
    settings = cluster().one("AWS::ECS::Cluster")["ClusterSettings"]
    assert {"Name": "containerInsights", "Value": "enabled"} in settings
