"""The run as it is told: to the ledger, to the record that reports are made of, to the terminal."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from buildonce.report import CheckRecord, Progress, RunRecord, StageRecord


class Events(Protocol):
    """Where events are appended: a ledger."""

    async def append(self, kind: str, *, run: str, data: Mapping[str, object]) -> object:
        """Record one event."""


@dataclass
class Journal:
    """What stages and checks write to.

    Args:
        events: the ledger.
        record: the run so far.
        progress: the terminal.
        root: the project; `out` is below it.
        out: where reports go.
    """

    events: Events
    record: RunRecord
    progress: Progress
    root: Path
    out: Path

    @property
    def started(self) -> datetime:
        """When the run began: what a container did before is cached."""
        return self.record.started

    async def stage_started(self, stage: StageRecord) -> None:
        """A stage begins."""
        self.record.stages.append(stage)
        self.progress.stage(stage)
        await self.append("stage.started", {"stage": stage.name})

    async def stage_finished(self, stage: StageRecord, summary: str) -> None:
        """A stage ended."""
        assert stage.result is not None
        await self.append(
            "stage.finished",
            {
                "stage": stage.name,
                "result": stage.result.in_ledger,
                "seconds": stage.seconds,
                "cached": stage.cached,
                "summary": summary,
            },
        )

    async def check_finished(self, stage: StageRecord, check: CheckRecord) -> None:
        """A check ended."""
        assert check.result is not None
        self.progress.check(check)
        await self.append(
            "check.finished",
            {
                "stage": stage.name,
                "check": check.name,
                "result": check.result.in_ledger,
                "seconds": check.seconds,
                "cached": bool(check.cached),
                "summary": check.summary,
            },
        )

    def debug(self, error: BaseException) -> None:
        """Keep an error's traceback in `debug.log`, for whoever looks after the pipeline itself."""
        text = "".join(traceback.format_exception(error))
        with (self.out / "debug.log").open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    async def append(self, kind: str, data: Mapping[str, object]) -> None:
        """Record an event of this run."""
        await self.events.append(kind, run=self.record.run, data=data)
