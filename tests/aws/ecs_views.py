"""What ECS answers when it is asked what it keeps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .clock import BEGIN
from .ecs_state import Deployment, Revision, Service


def described(service: Service, *, tags: bool = False) -> dict[str, Any]:
    """As DescribeServices shows it."""
    assert service.definition is not None
    shown: dict[str, Any] = {
        "serviceArn": service.arn,
        "serviceName": service.name,
        "clusterArn": service.cluster,
        "status": service.status,
        "desiredCount": service.desired,
        "runningCount": min(sum(r.running for r in service.revisions.values()), 10**6),
        "pendingCount": 0,
        "taskDefinition": service.definition.arn,
        "loadBalancers": service.data.get("loadBalancers", []),
        "deploymentConfiguration": service.data.get("deploymentConfiguration", {}),
        "deployments": _rows(service),
        "events": [
            {"id": str(i), "createdAt": service.created, "message": text}
            for i, text in enumerate(service.events[:5])
        ],
        "createdAt": service.created,
    }
    going = [one for one in service.deployments if not one.over]
    if going:
        shown["currentServiceDeployment"] = going[-1].arn
    if tags:
        shown["tags"] = [{"key": k, "value": v} for k, v in sorted(service.tags.items())]
    return shown


def _rows(service: Service) -> list[dict[str, Any]]:
    """The older view: a PRIMARY deployment and what it replaces."""
    if not service.deployments or service.status != "ACTIVE":
        return []
    newest = service.deployments[-1]
    went_back = newest.status.startswith("ROLLBACK") and newest.source is not None
    shown = newest.source if went_back and newest.source is not None else newest.target
    failed = newest.status in ("STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_IN_PROGRESS")
    rows = [
        _row(
            "PRIMARY",
            shown,
            service.desired,
            "COMPLETED"
            if newest.over and (newest.status == "SUCCESSFUL" or went_back)
            else "FAILED"
            if failed and not went_back
            else "IN_PROGRESS",
            newest.reason,
        )
    ]
    for revision in service.revisions.values():
        if revision is not shown and revision.running:
            rows.append(_row("ACTIVE", revision, revision.running, "COMPLETED", ""))
        elif revision is newest.target and went_back:
            rows.append(_row("INACTIVE", revision, 0, "FAILED", newest.reason))
    return rows


def deployment(service: Service, one: Deployment) -> dict[str, Any]:
    """As DescribeServiceDeployments shows it."""
    shown: dict[str, Any] = {
        "serviceDeploymentArn": one.arn,
        "serviceArn": service.arn,
        "clusterArn": service.cluster,
        "createdAt": one.created,
        "status": one.status,
        "statusReason": one.reason,
        "targetServiceRevision": _summary(one.target, service.desired),
        "sourceServiceRevisions": [_summary(one.source, service.desired)] if one.source else [],
        "deploymentConfiguration": one.configuration,
    }
    if one.stage is not None:
        shown["lifecycleStage"] = one.stage
    if one.hook is not None and not one.going_on:
        shown["lifecycleHookDetails"] = [
            {
                "hookId": one.hook,
                "targetType": "PAUSE",
                "status": "AWAITING_ACTION",
                "expiresAt": BEGIN + timedelta(seconds=one.hook_until),
                "timeoutAction": "ROLLBACK",
            }
        ]
    return shown


def _row(status: str, revision: Revision, desired: int, state: str, reason: str) -> dict[str, Any]:
    return {
        "id": f"ecs-svc/{revision.arn.rpartition('/')[2]}",
        "status": status,
        "taskDefinition": revision.definition.arn,
        "desiredCount": desired,
        "runningCount": revision.running,
        "pendingCount": 0,
        "failedTasks": 0,
        "rolloutState": state,
        "rolloutStateReason": reason,
    }


def _summary(revision: Revision, desired: int) -> dict[str, Any]:
    return {
        "arn": revision.arn,
        "requestedTaskCount": desired,
        "runningTaskCount": revision.running,
        "pendingTaskCount": 0,
        "requestedTestTrafficWeight": 0.0,
        "requestedProductionTrafficWeight": revision.weight,
    }
