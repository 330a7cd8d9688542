"""How bad a finding is, in one scale for every check.

    at_least("high", "medium")      # True
    from_score(9.8)                 # "critical", as CVSS v3 and v4 name their scores

A threshold is a severity too: what is at it or above it fails.
"""

from __future__ import annotations

from typing import Final, Literal

Severity = Literal["info", "low", "medium", "high", "critical"]

SEVERITIES: Final[tuple[Severity, ...]] = ("info", "low", "medium", "high", "critical")
"""From the least to the worst."""

# A score for each, in the middle of what CVSS gives that name: SARIF readers sort by it.
_SCORES: Final[dict[Severity, float]] = {
    "info": 0.0,
    "low": 2.0,
    "medium": 5.5,
    "high": 8.0,
    "critical": 9.5,
}


def rank(severity: Severity) -> int:
    """0 for "info" to 4 for "critical"."""
    return SEVERITIES.index(severity)


def at_least(severity: Severity, threshold: Severity) -> bool:
    """Whether `severity` is as bad as `threshold`, or worse."""
    return rank(severity) >= rank(threshold)


def from_score(score: float) -> Severity:
    """The name of a CVSS score (0 to 10): none and low below 4, medium to 7, high to 9.

    Raises:
        ValueError: it is no such score.
    """
    if not 0 <= score <= 10:
        raise ValueError(f"{score} is no CVSS score: they go from 0 to 10")
    if score >= 9:
        return "critical"
    if score >= 7:
        return "high"
    if score >= 4:
        return "medium"
    return "low" if score > 0 else "info"


def to_score(severity: Severity) -> float:
    """A score that `from_score` gives this name to."""
    return _SCORES[severity]
