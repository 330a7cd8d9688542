"""A second store, in memory and with a clock of its own: shows that the seam holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from buildonce.ledger import Event, Ledger
from buildonce.ledger.store import Query

START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryStore:
    def __init__(self) -> None:
        self.now = START
        self.kept: list[Event] = []

    def time(self) -> datetime:
        return self.now

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        event = Event(len(self.kept) + 1, self.time(), run, kind, data)
        self.kept.append(event)
        return event

    def select(self, query: Query) -> list[Event]:
        found = [
            event
            for event in self.kept
            if (query.run is None or event.run in query.run)
            and (query.kind is None or event.kind in query.kind)
            and (query.environment is None or event.data.get("environment") == query.environment)
            and (query.rollout is None or event.data.get("rollout") in query.rollout)
        ]
        found = found[: len(found) - query.offset] if query.offset < len(found) else []
        return found if query.limit is None else found[max(0, len(found) - query.limit) :]

    def close(self) -> None:
        pass


class Story:
    """Tells a ledger what happened, in few words; each word may be given the hours since START."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, clock=lambda: self.store.now)
        self._rollouts = 0
        self._running: dict[str, str | None] = {}

    def at(self, hours: float) -> Story:
        self.store.now = START + timedelta(hours=hours)
        return self

    async def tell(self, kind: str, run: str = "run", **data: Any) -> None:
        await self.ledger.append(kind, run=run, data=data)

    async def begin(self, run: str, pipeline: str = "delivery") -> None:
        await self.tell(
            "run.started", run, pipeline=pipeline, revision="abc", version="1", actor="me"
        )

    async def end(self, run: str, result: str = "passed") -> None:
        await self.tell("run.finished", run, result=result, seconds=1)

    async def release(self, name: str, committed: float = 0, run: str = "run") -> None:
        await self.tell(
            "release.created",
            run,
            version=name,
            revision=f"rev-{name}",
            digest=digest(name),
            repository="127.0.0.1:5080/dashboard",
            configuration="",
            committed_at=(START + timedelta(hours=committed)).isoformat(),
        )

    async def roll_out(
        self,
        name: str,
        result: str | None = "succeeded",
        *,
        environment: str = "production",
        reason: str = "deploy",
        run: str = "run",
    ) -> str:
        self._rollouts += 1
        rollout = f"rollout-{self._rollouts}"
        common: Mapping[str, Any] = {"rollout": rollout, "environment": environment}
        await self.tell(
            "rollout.started",
            run,
            **common,
            version=name,
            revision=f"rev-{name}",
            digest=digest(name),
            previous_digest=self._running.get(environment),
            reason=reason,
        )
        if result == "succeeded":
            self._running[environment] = digest(name)
        if result is not None:
            await self.tell(
                "rollout.finished",
                run,
                **common,
                result=result,
                digest=self._running.get(environment),
                seconds=1,
                cause=None if result == "succeeded" else "the smoke test failed",
            )
        return rollout


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")[:64]
