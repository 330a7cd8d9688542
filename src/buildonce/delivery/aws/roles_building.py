"""What CloudFormation itself is allowed: to make, change and remove an environment's stacks."""

from __future__ import annotations

from typing import Any

from buildonce.delivery.aws.statements import Scope, allow


def building(scope: Scope) -> list[dict[str, Any]]:
    """What CloudFormation needs to make, change and remove the environment's stacks."""
    name = scope.name
    logs = scope.arn("logs", f"log-group:/buildonce/{name}")
    own_roles = f"arn:{scope.partition}:iam::{scope.account}:role/{name}-{scope.region}-*"
    statements = [
        allow(
            "Logs",
            [
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:DeleteRetentionPolicy",
                "logs:ListTagsForResource",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
                "logs:UntagResource",
            ],
            [logs, f"{logs}:*"],
        ),
        allow("ReadLogs", ["logs:DescribeLogGroups"], "*"),
        allow(
            "Roles",
            [
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:PutRolePolicy",
                "iam:TagRole",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
            ],
            own_roles,
        ),
        allow(
            "Alarms",
            [
                "cloudwatch:DeleteAlarms",
                "cloudwatch:DescribeAlarms",
                "cloudwatch:ListTagsForResource",
                "cloudwatch:PutMetricAlarm",
                "cloudwatch:TagResource",
                "cloudwatch:UntagResource",
            ],
            scope.arn("cloudwatch", f"alarm:{name}-*"),
        ),
    ]
    if scope.environment.target == "ecs":
        statements += _ecs(scope)
    return statements


def _ecs(scope: Scope) -> list[dict[str, Any]]:
    name = scope.name
    here = {"StringEquals": {"aws:RequestedRegion": scope.region}}
    return [
        allow(
            "Cluster",
            [
                "ecs:CreateCluster",
                "ecs:DeleteCluster",
                "ecs:DescribeClusters",
                "ecs:TagResource",
                "ecs:UntagResource",
                "ecs:UpdateCluster",
                "ecs:UpdateClusterSettings",
            ],
            scope.arn("ecs", f"cluster/{name}"),
        ),
        allow(
            "Balancer",
            [
                "elasticloadbalancing:AddTags",
                "elasticloadbalancing:CreateListener",
                "elasticloadbalancing:CreateLoadBalancer",
                "elasticloadbalancing:CreateRule",
                "elasticloadbalancing:CreateTargetGroup",
                "elasticloadbalancing:DeleteListener",
                "elasticloadbalancing:DeleteLoadBalancer",
                "elasticloadbalancing:DeleteRule",
                "elasticloadbalancing:DeleteTargetGroup",
                "elasticloadbalancing:ModifyListener",
                "elasticloadbalancing:ModifyLoadBalancerAttributes",
                "elasticloadbalancing:ModifyRule",
                "elasticloadbalancing:ModifyTargetGroup",
                "elasticloadbalancing:ModifyTargetGroupAttributes",
                "elasticloadbalancing:RemoveTags",
                "elasticloadbalancing:SetSecurityGroups",
                "elasticloadbalancing:SetSubnets",
            ],
            [
                scope.arn("elasticloadbalancing", f"{kind}/{name}{tail}")
                for kind, tail in (
                    ("loadbalancer/app", "/*"),
                    ("listener/app", "/*"),
                    ("listener-rule/app", "/*"),
                    ("targetgroup", "-*"),
                )
            ],
        ),
        allow(
            "ReadBalancer",
            [
                "elasticloadbalancing:DescribeListenerAttributes",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeLoadBalancerAttributes",
                "elasticloadbalancing:DescribeLoadBalancers",
                "elasticloadbalancing:DescribeRules",
                "elasticloadbalancing:DescribeTags",
                "elasticloadbalancing:DescribeTargetGroupAttributes",
                "elasticloadbalancing:DescribeTargetGroups",
            ],
            "*",
        ),
        # A network's parts have no names before they exist: all that can be said is where.
        allow("Network", [f"ec2:{action}" for action in _EC2], "*", here),
    ]


_EC2 = (
    "AllocateAddress",
    "AssociateRouteTable",
    "AttachInternetGateway",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateInternetGateway",
    "CreateNatGateway",
    "CreateRoute",
    "CreateRouteTable",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateTags",
    "CreateVpc",
    "DeleteInternetGateway",
    "DeleteNatGateway",
    "DeleteRoute",
    "DeleteRouteTable",
    "DeleteSecurityGroup",
    "DeleteSubnet",
    "DeleteTags",
    "DeleteVpc",
    "DescribeAddresses",
    "DescribeAvailabilityZones",
    "DescribeInternetGateways",
    "DescribeNatGateways",
    "DescribeRouteTables",
    "DescribeSecurityGroupRules",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcAttribute",
    "DescribeVpcs",
    "DetachInternetGateway",
    "DisassociateRouteTable",
    "ModifyVpcAttribute",
    "ReleaseAddress",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
)
