"""What a run leaves for people and machines: lines, a last screen, `summary.json`, JUnit."""

from buildonce.report.console import Progress, duration, summarize
from buildonce.report.files import clear_reports, write_reports
from buildonce.report.junit import merge_junit
from buildonce.report.record import (
    CheckRecord,
    Problem,
    Result,
    RolloutRecord,
    RunRecord,
    StageRecord,
)

__all__ = [
    "CheckRecord",
    "Problem",
    "Progress",
    "Result",
    "RolloutRecord",
    "RunRecord",
    "StageRecord",
    "clear_reports",
    "duration",
    "merge_junit",
    "summarize",
    "write_reports",
]
