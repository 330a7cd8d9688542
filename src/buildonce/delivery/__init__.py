"""Delivery: the same digest into each environment, watched, and back again.

from buildonce.delivery import deploy, http_smoke

rollout = await deploy(release, config.environments["staging"], project="dashboard",
                       ledger=ledger, run=run)
"""

from __future__ import annotations

from buildonce.delivery.clock import Clock, SystemClock
from buildonce.delivery.containers import ContainerRuntime
from buildonce.delivery.deploying import deliver, deploy, promote
from buildonce.delivery.errors import (
    ApprovalRefused,
    Breached,
    DeliveryError,
    EnvironmentBusy,
    ManifestLost,
    NotFinished,
    NotHealthy,
    OutOfOrder,
    RollbackFailed,
    RolledBack,
    SmokeFailed,
    TargetFailed,
    Unclear,
    UnknownRelease,
    WindowClosed,
    WrongDigest,
)
from buildonce.delivery.lease import Lease, LeaseLost, Leases
from buildonce.delivery.options import Options
from buildonce.delivery.plan import ALL_AT_ONCE, Shift
from buildonce.delivery.promotion import AfterWave, Reached
from buildonce.delivery.recovery import recover
from buildonce.delivery.rollback import previous_good, rollback
from buildonce.delivery.smoke import Smoke, http_smoke
from buildonce.delivery.target import Candidate, Deployed, Manifest, Target
from buildonce.delivery.targets import open_target
from buildonce.delivery.watch import Verdict, Watch
from buildonce.delivery.waves import check_order, concurrency_of, planned_waves

__all__ = [
    "ALL_AT_ONCE",
    "AfterWave",
    "ApprovalRefused",
    "Breached",
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
    "NotFinished",
    "NotHealthy",
    "Options",
    "OutOfOrder",
    "Reached",
    "RollbackFailed",
    "RolledBack",
    "Shift",
    "Smoke",
    "SmokeFailed",
    "SystemClock",
    "Target",
    "TargetFailed",
    "Unclear",
    "UnknownRelease",
    "Verdict",
    "Watch",
    "WindowClosed",
    "WrongDigest",
    "check_order",
    "concurrency_of",
    "deliver",
    "deploy",
    "http_smoke",
    "open_target",
    "planned_waves",
    "previous_good",
    "promote",
    "recover",
    "rollback",
]
