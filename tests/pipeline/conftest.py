from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from buildonce.config import Config
from buildonce.pipeline.checks import Checks
from buildonce.pipeline.journal import Journal
from buildonce.report import CheckRecord, Progress, RunRecord, StageRecord


@dataclass
class Told:
    """A stage with a journal that keeps what it is told."""

    root: Path
    config: Config
    lines: StringIO = field(default_factory=StringIO)
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    stage: StageRecord = field(default_factory=lambda: StageRecord("commit"))

    def __post_init__(self) -> None:
        record = RunRecord("run", "app", "1", "a" * 40, datetime.now(UTC))
        out = self.root / "out"
        out.mkdir()
        self.journal = Journal(
            self, record, Progress(self.lines, spans_shown=False), self.root, out
        )

    async def append(self, kind: str, *, run: str, data: Mapping[str, object]) -> None:
        assert run == "run"
        self.events.append((kind, data))

    def parallel(self) -> Checks:
        return Checks(self.stage, self.journal, self.config)

    def check(self, name: str) -> CheckRecord:
        return next(check for check in self.stage.checks if check.name == name)

    @property
    def results(self) -> dict[str, str]:
        return {check.name: str(check.result) for check in self.stage.checks}


CONFIG = """\
[project]
name = "app"
repository = "registry.test/app"

[checks.configured]
limit = 7
"""


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path, Config.parse(CONFIG, path=Path("ci/pipeline.toml")))


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
