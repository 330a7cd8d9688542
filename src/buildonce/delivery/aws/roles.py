"""What the roles of an environment may do: documents without a wildcard action, scoped by name.

    roles = documents(production, project="shop")
    roles["caller"]          # what who starts rollouts is allowed: to enter the account
    roles["deploy"]          # what a rollout is allowed: the role that `role = …` names
    roles["stacks"]          # what `buildonce env plan` and `env apply` are allowed
    roles["cloudformation"]  # what CloudFormation is allowed on their behalf
    roles["leases"]          # what the role of [leases] is allowed, where there is such a table

The tests run every call that buildonce makes through these documents. A "*" stands for a resource
only where the service knows no narrower one for that action.
"""

from __future__ import annotations

from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.config.aws import role_arn
from buildonce.delivery.aws.ecr import repository_arn
from buildonce.delivery.aws.roles_building import building
from buildonce.delivery.aws.statements import Document, Scope, allow, document, pass_role
from buildonce.loopback import is_loopback


def documents(
    environment: EnvironmentConfig,
    *,
    project: str,
    partition: str = "aws",
    source: str | None = None,
) -> dict[str, Document]:
    """The policy documents of one place, by role.

    Args:
        environment: a place of one region.
        project: whose environment it is.
        partition: "aws", or another one of AWS's worlds.
        source: the repository that releases are cut into, and copied from.
    """
    scope = Scope(environment, project, partition)
    rollout = _ecs(scope) if environment.target == "ecs" else _lambda(scope)
    found = {
        "deploy": document(
            [
                allow("Stack", ["cloudformation:DescribeStacks"], scope.stack("service")),
                *rollout,
                *_watching(scope),
                *_registries(scope, source or ""),
            ]
        ),
        "stacks": document(
            [
                allow(
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
                allow("Drift", ["cloudformation:DescribeStackDriftDetectionStatus"], "*"),
                pass_role("PassRole", scope.role("cloudformation"), "cloudformation.amazonaws.com"),
            ]
        ),
        "cloudformation": document(building(scope)),
    }
    entered = [role_arn(environment.role or "", scope.account, partition=partition)]
    if (leases := environment.leases) is not None:
        table = f"{leases.region}:{leases.account_config.id}:table/{leases.table}"
        taking = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
        arn = f"arn:{partition}:dynamodb:{table}"
        found["leases"] = document([allow("Leases", taking, arn)])
        entered.append(role_arn(leases.role, leases.account_config.id, partition=partition))
    return {"caller": document([allow("Enter", ["sts:AssumeRole"], entered)]), **found}


def stacks(environment: EnvironmentConfig) -> tuple[str, ...]:
    """The environment's stacks, in the order in which they are made in every account."""
    return ("network", "cluster", "service") if environment.target == "ecs" else ("service",)


def _ecs(scope: Scope) -> list[dict[str, Any]]:
    name = scope.name
    family = scope.arn("ecs", f"task-definition/{name}:*")
    native = scope.environment.service.strategy != "weighted"
    services = scope.arn("ecs", f"service/{name}/{name}{'' if native else '-*'}")
    statements = [
        allow("Definitions", ["ecs:RegisterTaskDefinition"], family),
        allow(
            "TagNewOnes",
            ["ecs:TagResource"],
            [family, services],
            {"StringEquals": {"ecs:CreateAction": ["RegisterTaskDefinition", "CreateService"]}},
        ),
        allow("ReadDefinitions", ["ecs:DescribeTaskDefinition"], "*"),
        allow(
            "Services",
            ["ecs:CreateService", "ecs:DeleteService", "ecs:DescribeServices", "ecs:UpdateService"],
            services,
        ),
        allow(
            "Tasks",
            ["ecs:ListTasks"],
            "*",
            {"ArnEquals": {"ecs:cluster": scope.arn("ecs", f"cluster/{name}")}},
        ),
        allow("ReadTasks", ["ecs:DescribeTasks"], scope.arn("ecs", f"task/{name}/*")),
        pass_role(
            "PassRolesOfTasks",
            [scope.role("execution"), scope.role("task")],
            "ecs-tasks.amazonaws.com",
        ),
    ]
    if native:
        deployments = scope.arn("ecs", f"service-deployment/{name}/{name}/*")
        pauses = scope.environment.service.strategy != "rolling"
        statements += [
            allow("ListDeployments", ["ecs:ListServiceDeployments"], services),
            allow("Pointer", ["ecs:TagResource"], services),
            allow(
                "Deployments",
                [
                    *(["ecs:ContinueServiceDeployment"] if pauses else []),
                    "ecs:DescribeServiceDeployments",
                    "ecs:StopServiceDeployment",
                ],
                deployments,
            ),
            allow(
                "Revisions",
                ["ecs:DescribeServiceRevisions"],
                scope.arn("ecs", f"service-revision/{name}/{name}/*"),
            ),
            pass_role("PassRoleOfTraffic", scope.role("balancer"), "ecs.amazonaws.com"),
        ]
    else:
        rules = scope.arn("elasticloadbalancing", f"listener-rule/app/{name}/*")
        statements += [
            allow(
                "Traffic",
                ["elasticloadbalancing:AddTags", "elasticloadbalancing:ModifyRule"],
                rules,
            ),
            allow(
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


def _lambda(scope: Scope) -> list[dict[str, Any]]:
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
        allow("Function", [f"lambda:{a}" for a in actions], [function, f"{function}:*"]),
        pass_role("PassRole", scope.role("execution"), "lambda.amazonaws.com"),
    ]


def _watching(scope: Scope) -> list[dict[str, Any]]:
    # Composite alarms are told only to who may look at all alarms.
    statements = [allow("Alarms", ["cloudwatch:DescribeAlarms"], "*")]
    if scope.environment.metrics:
        statements.append(allow("Metrics", ["cloudwatch:GetMetricStatistics"], "*"))
    return statements


def _registries(scope: Scope, source: str) -> list[dict[str, Any]]:
    """To write to the environment's own registry, and to read from where releases are cut."""
    endpoint = scope.environment.account_config.endpoint
    simulated = endpoint is not None and is_loopback(endpoint)
    registry = scope.environment.registry or ""
    own, other = (repository_arn(name, partition=scope.partition) for name in (registry, source))
    if not registry or (own is None and other is None and not simulated):
        return []
    reading = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    statements = [allow("Login", ["ecr:GetAuthorizationToken"], "*")]
    if own is not None:
        writing = ["CompleteLayerUpload", "InitiateLayerUpload", "PutImage", "UploadLayerPart"]
        statements.append(allow("Registry", [*reading, *(f"ecr:{a}" for a in writing)], own))
    if other is not None:
        statements.append(allow("ReleasesToCopy", reading, other))
    return statements
