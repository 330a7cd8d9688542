"""Delivery: the same digest into each environment, watched, and back again.

from buildonce.delivery import deploy, http_smoke

rollout = await deploy(release, config.environments["staging"], project="dashboard",
                       ledger=ledger, run=run)
"""

from __future__ import annotations

from buildonce.delivery.containers import ContainerRuntime
from buildonce.delivery.errors import (
    ApprovalRefused,
    DeliveryError,
    EnvironmentBusy,
    NotHealthy,
    RollbackFailed,
    RolledBack,
    SmokeFailed,
    TargetFailed,
    UnknownRelease,
    WrongDigest,
)
from buildonce.delivery.rollback import previous_good, rollback
from buildonce.delivery.rollout import ALL_AT_ONCE, Shift, deploy, recover
from buildonce.delivery.smoke import Smoke, http_smoke
from buildonce.delivery.target import Candidate, Deployed, Target
from buildonce.delivery.targets import open_target

__all__ = [
    "ALL_AT_ONCE",
    "ApprovalRefused",
    "Candidate",
    "ContainerRuntime",
    "DeliveryError",
    "Deployed",
    "EnvironmentBusy",
    "NotHealthy",
    "RollbackFailed",
    "RolledBack",
    "Shift",
    "Smoke",
    "SmokeFailed",
    "Target",
    "TargetFailed",
    "UnknownRelease",
    "WrongDigest",
    "deploy",
    "http_smoke",
    "open_target",
    "previous_good",
    "recover",
    "rollback",
]
