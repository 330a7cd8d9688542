"""Names of repositories in ECR: "222222222222.dkr.ecr.eu-west-1.amazonaws.com/shop"."""

from __future__ import annotations

import re

_NAME = re.compile(r"([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?(?:/(.+))?")


def region_of(host: str) -> str | None:
    """The region of a registry's host; None for one that is not ECR's."""
    found = _NAME.fullmatch(host)
    return found[2] if found is not None else None


def repository_arn(repository: str | None, *, partition: str) -> str | None:
    """The ARN of a repository; None for one that is not in ECR.

    Args:
        repository: "host/name", or None.
        partition: "aws", or another one of AWS's worlds.
    """
    found = _NAME.fullmatch(repository or "")
    if found is None or found[3] is None:
        return None
    return f"arn:{partition}:ecr:{found[2]}:{found[1]}:repository/{found[3]}"
