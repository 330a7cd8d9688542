"""What the roles of an environment may do: documents without a wildcard action, scoped by name.

    roles = documents(production, project="shop")
    roles["deploy"]          # what a rollout is allowed: the role that `role = …` names
    roles["stacks"]          # what `buildonce env plan` and `env apply` are allowed
    roles["cloudformation"]  # what CloudFormation is allowed on their behalf

The tests run every call that buildonce makes through these documents. A "*" stands for a resource
only where the service knows no narrower one for that action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildonce.config import EnvironmentConfig

LEASES = "buildonce-leases"
"""The DynamoDB table of leases, when nothing else is said."""

Document = dict[str, Any]


def documents(
    environment: EnvironmentConfig,
    *,
    project: str,
    partition: str = "aws",
    leases: str = LEASES,
    lease_account: str | None = None,
) -> dict[str, Document]:
    """The policy documents of one place, by role.

    Args:
        environment: a place of one region.
        project: whose environment it is.
        partition: "aws", or another one of AWS's worlds.
        leases: the table of leases.
        lease_account: the account that it is in, where that is another one.
    """
    scope = _Scope(environment, project, partition)
    rollout = _ecs(scope) if environment.target == "ecs" else _lambda(scope)
    return {
        "deploy": _document(
            [
                _allow("Stack", ["cloudformation:DescribeStacks"], scope.stack("service")),
                *rollout,
                *_watching(scope),
                *_registry(scope),
                _allow(
                    "Lease",
                    ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:UpdateItem"],
                    scope.arn("dynamodb", f"table/{leases}", account=lease_account),
                ),
            ]
        ),
        "stacks": _document(
            [
                _allow(
                    "Stacks",
                    [
                        "cloudformation:CreateChangeSet",
                        "cloudformation:DeleteChangeSet",
                        "cloudformation:DescribeChangeSet",
                        "cloudformation:DescribeStackEvents",
                        "cloudformation:DescribeStackResourceDrifts",
                        "cloudformation:DescribeStacks",
                        "cloudformation:DetectStackDrift",
                        "cloudformation:ExecuteChangeSet",
                    ],
                    [scope.stack(name) for name in stacks(environment)],
                ),
                _allow("Drift", ["cloudformation:DescribeStackDriftDetectionStatus"], "*"),
                _pass("PassRole", scope.role("cloudformation"), "cloudformation.amazonaws.com"),
            ]
        ),
        "cloudformation": _document(_building(scope)),
    }


def trust(principal: str, *, external_id: str | None = None) -> Document:
    """Who may assume a role.

    Args:
        principal: an ARN, or a service's name.
        external_id: that the caller must give.
    """
    kind = "Service" if principal.endswith(".amazonaws.com") else "AWS"
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {kind: principal},
        "Action": "sts:AssumeRole",
    }
    if external_id is not None:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return {"Version": "2012-10-17", "Statement": [statement]}


def stacks(environment: EnvironmentConfig) -> tuple[str, ...]:
    """The environment's stacks, in the order in which they are made in every account."""
    return ("network", "cluster", "service") if environment.target == "ecs" else ("service",)


class _Scope:
    """Names and ARNs of one place."""

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


def _ecs(scope: _Scope) -> list[dict[str, Any]]:
    name = scope.name
    family = scope.arn("ecs", f"task-definition/{name}:*")
    native = scope.environment.service.strategy != "weighted"
    services = scope.arn("ecs", f"service/{name}/{name}{'' if native else '-*'}")
    statements = [
        _allow("Definitions", ["ecs:RegisterTaskDefinition"], family),
        _allow(
            "TagNewOnes",
            ["ecs:TagResource"],
            [family, services],
            {"StringEquals": {"ecs:CreateAction": ["RegisterTaskDefinition", "CreateService"]}},
        ),
        _allow("ReadDefinitions", ["ecs:DescribeTaskDefinition"], "*"),
        _allow(
            "Services",
            ["ecs:CreateService", "ecs:DeleteService", "ecs:DescribeServices", "ecs:UpdateService"],
            services,
        ),
        _allow(
            "Tasks",
            ["ecs:ListTasks"],
            "*",
            {"ArnEquals": {"ecs:cluster": scope.arn("ecs", f"cluster/{name}")}},
        ),
        _allow("ReadTasks", ["ecs:DescribeTasks"], scope.arn("ecs", f"task/{name}/*")),
        _pass(
            "PassRolesOfTasks",
            [scope.role("execution"), scope.role("task")],
            "ecs-tasks.amazonaws.com",
        ),
    ]
    if native:
        deployments = scope.arn("ecs", f"service-deployment/{name}/{name}/*")
        statements += [
            _allow("ListDeployments", ["ecs:ListServiceDeployments"], services),
            _allow("Pointer", ["ecs:TagResource"], services),
            _allow(
                "Deployments",
                [
                    "ecs:ContinueServiceDeployment",
                    "ecs:DescribeServiceDeployments",
                    "ecs:StopServiceDeployment",
                ],
                deployments,
            ),
            _allow(
                "Revisions",
                ["ecs:DescribeServiceRevisions"],
                scope.arn("ecs", f"service-revision/{name}/{name}/*"),
            ),
            _pass("PassRoleOfTraffic", scope.role("balancer"), "ecs.amazonaws.com"),
        ]
    else:
        rules = scope.arn("elasticloadbalancing", f"listener-rule/app/{name}/*")
        statements += [
            _allow(
                "Traffic",
                ["elasticloadbalancing:AddTags", "elasticloadbalancing:ModifyRule"],
                rules,
            ),
            _allow(
                "ReadTraffic",
                [
                    "elasticloadbalancing:DescribeRules",
                    "elasticloadbalancing:DescribeTags",
                    "elasticloadbalancing:DescribeTargetHealth",
                ],
                "*",
            ),
        ]
    return statements


def _lambda(scope: _Scope) -> list[dict[str, Any]]:
    function = scope.arn("lambda", f"function:{scope.name}")
    actions = [
        "CreateAlias",
        "CreateFunction",
        "DeleteAlias",
        "DeleteFunction",
        "GetAlias",
        "GetFunctionConfiguration",
        "ListTags",
        "PublishVersion",
        "TagResource",
        "UpdateAlias",
        "UpdateFunctionCode",
        "UpdateFunctionConfiguration",
    ]
    return [
        _allow("Function", [f"lambda:{a}" for a in actions], [function, f"{function}:*"]),
        _pass("PassRole", scope.role("execution"), "lambda.amazonaws.com"),
    ]


def _watching(scope: _Scope) -> list[dict[str, Any]]:
    statements = [
        _allow(
            "Alarms",
            ["cloudwatch:DescribeAlarms"],
            [
                scope.arn("cloudwatch", f"alarm:{name}")
                for name in (f"{scope.name}-*", *scope.environment.rollout.alarms)
            ],
        )
    ]
    if scope.environment.metrics:
        statements.append(_allow("Metrics", ["cloudwatch:GetMetricStatistics"], "*"))
    return statements


def _registry(scope: _Scope) -> list[dict[str, Any]]:
    registry = scope.environment.registry or ""
    if ".dkr.ecr." not in registry:
        return []
    repository = registry.partition("/")[2]
    return [
        _allow("Login", ["ecr:GetAuthorizationToken"], "*"),
        _allow(
            "Registry",
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:CompleteLayerUpload",
                "ecr:GetDownloadUrlForLayer",
                "ecr:InitiateLayerUpload",
                "ecr:PutImage",
                "ecr:UploadLayerPart",
            ],
            scope.arn("ecr", f"repository/{repository}"),
        ),
    ]


def _building(scope: _Scope) -> list[dict[str, Any]]:
    """What CloudFormation needs to make, change and remove the environment's stacks."""
    name = scope.name
    logs = scope.arn("logs", f"log-group:/buildonce/{name}")
    own_roles = f"arn:{scope.partition}:iam::{scope.account}:role/{name}-{scope.region}-*"
    statements = [
        _allow(
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
        _allow("ReadLogs", ["logs:DescribeLogGroups"], "*"),
        _allow(
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
        _allow(
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
        statements += _building_ecs(scope)
    return statements


def _building_ecs(scope: _Scope) -> list[dict[str, Any]]:
    name = scope.name
    here = {"StringEquals": {"aws:RequestedRegion": scope.region}}
    return [
        _allow(
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
        _allow(
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
        _allow(
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
        _allow("Network", [f"ec2:{action}" for action in _EC2], "*", here),
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


def _document(statements: Sequence[dict[str, Any]]) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(
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


def _pass(sid: str, roles: str | Sequence[str], service: str) -> dict[str, Any]:
    condition = {"StringEquals": {"iam:PassedToService": service}}
    return _allow(sid, ["iam:PassRole"], roles, condition)
