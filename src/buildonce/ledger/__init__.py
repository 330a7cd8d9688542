"""The ledger: an append-only record of runs and rollouts, and the metrics computed from it.

from buildonce.ledger import Ledger, new_run_id
"""

from __future__ import annotations

from buildonce.ledger.errors import (
    EventRefused,
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerMissing,
)
from buildonce.ledger.events import JSON, KINDS, Event, is_id, new_run_id
from buildonce.ledger.ledger import Ledger
from buildonce.ledger.metrics import Metrics
from buildonce.ledger.views import CheckResult, Promotion, Release, Rollout, Run, StageResult, Step

__all__ = [
    "JSON",
    "KINDS",
    "CheckResult",
    "Event",
    "EventRefused",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerLocked",
    "LedgerMissing",
    "Metrics",
    "Promotion",
    "Release",
    "Rollout",
    "Run",
    "StageResult",
    "Step",
    "is_id",
    "new_run_id",
]
