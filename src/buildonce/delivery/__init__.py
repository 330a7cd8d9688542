"""Delivery: the same digest into each environment, watched, and back again.

from buildonce.delivery import deploy, http_smoke

rollout = await deploy(release, config.environments["staging"], project="dashboard",
                       ledger=ledger, run=run)
"""

from __future__ import annotations

from buildonce.delivery.clock import Clock, SystemClock
from buildonce.delivery.containers import ContainerRuntime
from buildonce.delivery.errors import (
    ApprovalRefused,
    DeliveryError,
    EnvironmentBusy,
    ManifestLost,
    NotHealthy,
    RollbackFailed,
    RolledBack,
    SmokeFailed,
    TargetFailed,
    UnknownRelease,
    WrongDigest,
)
from buildonce.delivery.lease import Lease, LeaseLost, Leases
from buildonce.delivery.rollback import previous_good, rollback
from buildonce.delivery.rollout import ALL_AT_ONCE, Shift, deploy, recover
from buildonce.delivery.smoke import Smoke, http_smoke
from buildonce.delivery.target import Candidate, Deployed, Manifest, Target
from buildonce.delivery.targets import open_target
from buildonce.delivery.watch import Verdict, Watch

__all__ = [
    "ALL_AT_ONCE",
    "ApprovalRefused",
    "Candidate",
    "Clock",
    "ContainerRuntime",
    "DeliveryError",
    "Deployed",
    "EnvironmentBusy",
    "Lease",
    "LeaseLost",
    "Leases",
    "Manifest",
    "ManifestLost",
    "NotHealthy",
    "RollbackFailed",
    "RolledBack",
    "Shift",
    "Smoke",
    "SmokeFailed",
    "SystemClock",
    "Target",
    "TargetFailed",
    "UnknownRelease",
    "Verdict",
    "Watch",
    "WrongDigest",
    "deploy",
    "http_smoke",
    "open_target",
    "previous_good",
    "recover",
    "rollback",
]
