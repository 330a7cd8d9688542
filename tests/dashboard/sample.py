"""A ledger as it is after a month of work: for tests, and to look at.

python -m tests.dashboard.sample FILE
"""

from __future__ import annotations

import hashlib
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from buildonce.ledger import Ledger
from buildonce.ledger.sqlite import SqliteStore

CHECKS = (
    ("lint", 2.1, "ruff: 61 files, nothing found"),
    ("types", 11.4, "mypy --strict: no issues in 61 files"),
    ("unit tests", 18.6, "214 passed, coverage 91.4 %"),
    ("build image", 6.2, "Dockerfile, 48.1 MB"),
)
FAILURE = """tests/dashboard/test_pages.py::test_home_names_the_release
AssertionError: assert '2026.11.20' in '<html>...'"""


class Sample:
    """Writes runs at chosen times."""

    def __init__(self, path: Path, now: datetime) -> None:
        self.clock = now
        self.random = random.Random(7)  # noqa: S311
        self.ledger = Ledger(SqliteStore(path, clock=lambda: self.clock), clock=lambda: self.clock)
        self.running: dict[str, str | None] = {"staging": None, "production": None}

    async def run(
        self,
        started: datetime,
        result: str = "passed",
        *,
        cached: bool = False,
        stop_at: str | None = None,
        repeat: str | None = None,
    ) -> str:
        """One run of the pipeline; `stop_at` is where its process dies."""
        self.clock = started
        name = repeat or f"{started:%Y%m%d%H%M}"
        revision = hashlib.sha256(name.encode()).hexdigest()[:40]
        digest = "sha256:" + hashlib.sha256(f"image {name}".encode()).hexdigest()
        run = f"{started:%Y%m%dT%H%M%SZ}-{revision[:6]}"
        version = f"{started:%Y.%m.%d}+g{revision[:7]}"

        async def tell(kind: str, **data: Any) -> None:
            await self.ledger.append(kind, run=run, data=data)

        await tell(
            "run.started",
            pipeline="delivery",
            revision=revision,
            version=version,
            actor=self.random.choice(("ada", "grace", "ci")),
        )
        await tell("stage.started", stage="commit")
        for check, seconds, summary in CHECKS:
            took = 0.1 if cached else seconds * self.random.uniform(0.8, 1.3)
            failed = result == "check-failed" and check == "unit tests"
            self.clock += timedelta(seconds=took)
            await tell(
                "check.finished",
                stage="commit",
                check=check,
                result="failed" if failed else "passed",
                seconds=took,
                cached=cached,
                summary=FAILURE if failed else summary,
            )
        if stop_at == "commit":
            return run
        failed = result == "check-failed"
        await tell(
            "stage.finished",
            stage="commit",
            result="failed" if failed else "passed",
            seconds=(self.clock - started).total_seconds(),
            cached=cached,
            summary="unit tests: 1 of 214 failed" if failed else f"{len(CHECKS)} checks passed",
        )
        if not failed:
            await tell(
                "release.created",
                version=version,
                revision=revision,
                digest=digest,
                repository="127.0.0.1:5080/dashboard",
                configuration="sha256:" + "5e" * 32,
                committed_at=(started - timedelta(minutes=self.random.randint(2, 55))).isoformat(),
            )
            for stage, environment in (("acceptance", "staging"), ("production", "production")):
                bad = result == "rolled-back" and environment == "staging"
                began = self.clock
                await tell("stage.started", stage=stage)
                outcome = await self.roll_out(
                    run, environment, version, revision, digest, bad, stop=stop_at == environment
                )
                if outcome is None:
                    return run
                self.clock += timedelta(seconds=1.1)
                await tell(
                    "stage.finished",
                    stage=stage,
                    result="failed" if bad else "passed",
                    seconds=(self.clock - began).total_seconds(),
                    cached=False,
                    summary="smoke test: /healthz answered 500" if bad else "smoke test passed",
                )
                if bad:
                    break
        took = (self.clock - started).total_seconds()
        await tell("run.finished", result=result, seconds=took)
        return run

    async def take_back(self) -> None:
        """Somebody rolls production back to what ran before."""
        now = await self.ledger.current("production")
        earlier = [each for each in await self.ledger.rollouts("production", 5) if each.succeeded]
        if now is None or len(earlier) < 2:
            return
        self.clock += timedelta(minutes=13)
        run = f"{self.clock:%Y%m%dT%H%M%SZ}-{now.revision[6:12]}"
        to = earlier[1]
        who = {"pipeline": "rollback", "revision": to.revision, "version": to.version}
        await self.ledger.append("run.started", run=run, data={**who, "actor": "grace"})
        await self.roll_out(
            run, "production", to.version, to.revision, to.digest, False, reason="rollback"
        )
        data = {"result": "passed", "seconds": 4.2}
        await self.ledger.append("run.finished", run=run, data=data)

    async def roll_out(
        self,
        run: str,
        environment: str,
        version: str,
        revision: str,
        digest: str,
        bad: bool,
        *,
        reason: str = "deploy",
        stop: bool = False,
    ) -> str | None:
        rollout = f"{environment}-{run}"
        began = self.clock
        before = self.running[environment]
        common = {"rollout": rollout, "environment": environment}
        started = {
            **common,
            "version": version,
            "revision": revision,
            "digest": digest,
            "previous_digest": before,
            "reason": reason,
        }
        await self.ledger.append("rollout.started", run=run, data=started)
        steps: list[tuple[float, str, dict[str, Any]]] = [
            (0.8, "pulled", {"reference": f"127.0.0.1:5080/dashboard@{digest}"}),
            (0.4, "started", {"container": f"{environment}-dashboard-{revision[:8]}"}),
            (1.1, "healthy", {"status": 200, "attempts": 3}),
            (0.1, "shifted", {"percent": 100}),
        ]
        if environment == "production":
            split = {"new": 41, "old": 361, "failed": 0, "share": 10.2}
            steps.insert(3, (4.0, "bake", {"percent": 10, "seconds": 4.0, "traffic": split}))
        if stop:
            steps = steps[:2]
        elif bad:
            steps += [(0.4, "smoke test", {"passed": False}), (0.1, "restored", {"percent": 100})]
        else:
            steps += [(0.4, "smoke test", {"passed": True}), (0.9, "previous retired", {})]
        for seconds, step, data in steps:
            self.clock += timedelta(seconds=seconds * self.random.uniform(0.8, 1.4))
            event = {**common, "step": step, "data": data}
            await self.ledger.append("rollout.step", run=run, data=event)
        if stop:
            return None
        if not bad:
            self.running[environment] = digest
        finished = {
            **common,
            "result": "rolled-back" if bad else "succeeded",
            "digest": self.running[environment],
            "seconds": (self.clock - began).total_seconds(),
            "cause": "the smoke test of http://127.0.0.1:8102/healthz answered 500, expected 200"
            if bad
            else None,
        }
        await self.ledger.append("rollout.finished", run=run, data=finished)
        return rollout


async def fill(path: Path, now: datetime | None = None) -> None:
    """A month of runs up to `now`: passed, cached, failed, rolled back, dead, and one under way."""
    now = now or datetime.now(UTC)
    sample = Sample(path, now)
    start = now.replace(hour=9, minute=12, second=5) - timedelta(days=31)
    for number in range(44):
        at = start + timedelta(hours=17 * number, minutes=(number * 23) % 60)
        result = {11: "check-failed", 12: "check-failed", 25: "rolled-back", 33: "tool-failed"}
        await sample.run(
            at, result.get(number, "passed"), stop_at="commit" if number == 38 else None
        )
        if number in (17, 36):
            await sample.take_back()
    hour = timedelta(hours=1)
    await sample.run(now - 5 * hour)
    await sample.run(now - 3.2 * hour, "check-failed")
    await sample.run(now - 2.9 * hour, cached=True)
    await sample.run(now - 1.5 * hour, "rolled-back")
    await sample.run(now - timedelta(minutes=22), stop_at="production")
    await sample.run(now - timedelta(seconds=50), stop_at="commit")
    sample.ledger.close()


if __name__ == "__main__":
    anyio.run(fill, Path(sys.argv[1]))
