"""Drift: what other hands have changed in a stack; told, never fought."""

from __future__ import annotations

from buildonce.delivery.aws.change_sets import LOOK_AGAIN, PATIENCE
from buildonce.delivery.aws.session import AwsSession

_MOVED_BY_ROLLOUTS = {"Rule": ("/Actions", "/Tags")}
"""Properties that rollouts change: that they differ from the template is no drift."""


async def drift_of(aws: AwsSession, stack: str) -> list[str]:
    """The resources of a stack that are not as it says, one a line."""
    started = await aws.call("cloudformation", "DetectStackDrift", StackName=stack)
    began = aws.clock.monotonic()
    while True:
        found = await aws.call(
            "cloudformation",
            "DescribeStackDriftDetectionStatus",
            StackDriftDetectionId=started["StackDriftDetectionId"],
        )
        if found["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        if aws.clock.monotonic() - began > PATIENCE:
            return ["it could not be found out in time"]
        await aws.clock.sleep(LOOK_AGAIN)
    if found["DetectionStatus"] == "DETECTION_FAILED":
        return [
            f"it could not be found out: {found.get('DetectionStatusReason', 'no reason given')}"
        ]
    if found.get("StackDriftStatus") != "DRIFTED":
        return []
    answer = await aws.call(
        "cloudformation",
        "DescribeStackResourceDrifts",
        StackName=stack,
        StackResourceDriftStatusFilters=["MODIFIED", "DELETED"],
    )
    told: list[str] = []
    for one in answer["StackResourceDrifts"]:
        name, ours = one["LogicalResourceId"], _MOVED_BY_ROLLOUTS.get(one["LogicalResourceId"], ())
        if one["StackResourceDriftStatus"] == "DELETED":
            told.append(f"{name} {one['ResourceType']} was deleted")
            continue
        paths = [
            difference["PropertyPath"]
            for difference in one.get("PropertyDifferences", ())
            if not difference["PropertyPath"].startswith(tuple(ours) or ("\0",))
        ]
        if paths:
            told.append(f"{name} {one['ResourceType']}: {', '.join(sorted(paths))}")
    return told
