"""How bad a finding is; a leaf module has it, for policies and configuration say it too."""

from __future__ import annotations

from buildonce.severity import (
    SEVERITIES,
    Severity,
    at_least,
    from_score,
    rank,
    to_score,
)

__all__ = ["SEVERITIES", "Severity", "at_least", "from_score", "rank", "to_score"]
