"""The ledger: what happened, in the order it happened, and nothing that can be changed later.

async with Ledger.open(path) as ledger:
    run = new_run_id()
    await ledger.append("run.started", run=run, data={"pipeline": "delivery", ...})
    ...
    for rollout in await ledger.rollouts("production", limit=5):
        print(rollout.version, rollout.state)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread

from buildonce.ledger.errors import LedgerCorrupt
from buildonce.ledger.events import Event, checked, checked_run
from buildonce.ledger.metrics import Metrics, RunEnd, compute
from buildonce.ledger.sqlite import SqliteStore
from buildonce.ledger.store import Query, Store
from buildonce.ledger.views import (
    Promotion,
    Release,
    Rollout,
    Run,
    promotions_of,
    releases_of,
    rollouts_of,
    runs_of,
)

T = TypeVar("T")

_ROLLOUT = ("rollout.started", "rollout.step", "rollout.finished")
_PROMOTION = ("promotion.started", "promotion.step", "promotion.finished", "rollout.started")
_ROLLOUT_ENDS = ("rollout.started", "rollout.finished")


class Ledger:
    """Appends events and reads what they say. One instance may be shared by many tasks.

    Every method that waits does so in a worker thread; every one may raise `LedgerError` with its
    remedy (`LedgerLocked`, `LedgerCorrupt`, ...).

    Args:
        store: where the events are; `Ledger.open` makes the usual one.
        clock: the time it is, UTC; views tell a silent run from a live one by it.
    """

    def __init__(
        self, store: Store, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._clock = clock

    @classmethod
    def open(
        cls, path: Path | str, *, read_only: bool = False, patience: float | None = None
    ) -> Self:
        """Open the SQLite ledger at `path`; unless `read_only`, make it when there is none.

        Args:
            patience: seconds to wait for other processes before LedgerLocked is raised.

        Raises:
            LedgerMissing: `read_only` and there is no file.
            LedgerCorrupt: the file is damaged, or not a ledger.
            LedgerError: it cannot be opened for another reason, which the message names.
        """
        return cls(SqliteStore(Path(path), read_only=read_only, patience=patience))

    @property
    def path(self) -> Path | None:
        """The file it is kept in; None for a store that has none."""
        found: Path | None = getattr(self._store, "path", None)
        return found

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def append(self, kind: str, *, run: str, data: Mapping[str, object]) -> Event:
        """Record one event durably.

        It is recorded even while the calling task is being cancelled: how a run was interrupted
        is what the ledger is asked for later.

        Raises:
            EventRefused: the kind is unknown, or the run id or the data has not the agreed form.
        """
        plain = checked(kind, data)
        checked_run(run)
        with anyio.CancelScope(shield=True):
            event = await anyio.to_thread.run_sync(
                lambda: self._store.append(run=run, kind=kind, data=plain)
            )
        return event

    async def events(
        self,
        *,
        run: str | None = None,
        kinds: Collection[str] | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """The events asked for, oldest first; with `limit`, only the newest ones."""
        query = Query(run=None if run is None else [run], kind=kinds, limit=limit)
        return await self._read(lambda: self._store.select(query))

    async def runs(self, limit: int = 50, *, offset: int = 0) -> list[Run]:
        """The runs, newest first, after skipping `offset`."""

        def read() -> list[Run]:
            starts = self._select(kind=["run.started"], limit=limit, offset=offset)
            return runs_of(self._select(run=_runs(starts)), self._clock())

        return await self._read(read)

    async def run(self, run: str) -> Run | None:
        """The run of that id, None when the ledger has none."""

        def read() -> Run | None:
            return next(iter(runs_of(self._select(run=[run]), self._clock())), None)

        return await self._read(read)

    async def rollouts(
        self, environment: str | None = None, limit: int = 50, *, offset: int = 0
    ) -> list[Rollout]:
        """The rollouts, newest first, after skipping `offset`."""

        def read() -> list[Rollout]:
            starts = self._select(
                kind=["rollout.started"], environment=environment, limit=limit, offset=offset
            )
            return self._rollouts([event.data["rollout"] for event in starts])

        return await self._read(read)

    async def rollout(self, rollout: str) -> Rollout | None:
        """The rollout of that id, None when the ledger has none."""
        return await self._read(lambda: next(iter(self._rollouts([rollout])), None))

    async def promotions(self, limit: int | None = 50) -> list[Promotion]:
        """The promotions through waves, newest first."""

        def read() -> list[Promotion]:
            found = promotions_of(self._select(kind=_PROMOTION))
            return found if limit is None else found[:limit]

        return await self._read(read)

    async def environments(self) -> list[str]:
        """The environments that ever had a rollout, by name."""

        def read() -> list[str]:
            starts = self._select(kind=["rollout.started"])
            return sorted({event.data["environment"] for event in starts})

        return await self._read(read)

    async def current(self, environment: str) -> Rollout | None:
        """The rollout that brought what runs in the environment: the newest that succeeded."""

        def read() -> Rollout | None:
            # By the order of their ends; a later word on the same rollout is the valid one.
            last: dict[str, str] = {}
            for event in self._select(kind=["rollout.finished"], environment=environment):
                last.pop(event.data["rollout"], None)
                last[event.data["rollout"]] = event.data["result"]
            newest = next((id_ for id_ in reversed(last) if last[id_] == "succeeded"), None)
            found = self._rollouts([newest]) if newest is not None else []
            return found[0] if found else None

        return await self._read(read)

    async def release(self, version_or_digest: str) -> Release | None:
        """The newest release of that version or image digest, None when there is none."""
        for release in await self.releases(limit=None):
            if version_or_digest in (release["version"], release["digest"]):
                return release
        return None

    async def releases(self, limit: int | None = 50, *, offset: int = 0) -> list[Release]:
        """The distinct releases, newest first, after skipping `offset`."""

        def read() -> list[Release]:
            found = releases_of(self._select(kind=["release.created"]))
            return found[offset : None if limit is None else offset + limit]

        return await self._read(read)

    async def metrics(
        self,
        environment: str = "production",
        window: timedelta = timedelta(days=30),
        *,
        until: datetime | None = None,
    ) -> Metrics:
        """Lead time, deployment frequency, change failure rate, MTBF and MTTR (see `Metrics`).

        Args:
            window: how far back from `until`; `until` is now when not given.
        """
        end = until or self._clock()

        def read() -> Metrics:
            rollouts = rollouts_of(
                self._select(kind=_ROLLOUT_ENDS, environment=environment), end, {}
            )
            rollouts.sort(key=lambda rollout: rollout.finished or rollout.started)
            return compute(
                environment,
                end - window,
                end,
                rollouts=rollouts,
                committed=self._committed(),
                runs=self._run_ends({rollout.run for rollout in rollouts}),
            )

        return await self._read(read)

    def _committed(self) -> dict[str, datetime]:
        return {
            event.data["revision"]: datetime.fromisoformat(event.data["committed_at"])
            for event in self._select(kind=["release.created"])
        }

    def _run_ends(self, delivering: set[str]) -> list[RunEnd]:
        """Ended runs, oldest first, of the pipelines that the `delivering` runs belong to."""
        starts = self._select(kind=["run.started"])
        pipelines = {event.data["pipeline"] for event in starts if event.run in delivering}
        results = {e.run: e.data["result"] for e in self._select(kind=["run.finished"])}
        return [
            RunEnd(event.at, results[event.run])
            for event in starts
            if event.data["pipeline"] in pipelines and event.run in results
        ]

    def _rollouts(self, ids: Collection[str]) -> list[Rollout]:
        events = self._select(kind=_ROLLOUT, rollout=ids)
        # Only who has not ended may still be at work; a fleet's run has too many events to read it
        # for each of its rollouts.
        ended_ones = {e.data["rollout"] for e in events if e.kind == "rollout.finished"}
        open_runs = _runs(e for e in events if e.data["rollout"] not in ended_ones)
        heard: dict[str, datetime | None] = {}
        for event in self._select(run=open_runs):
            ended = event.run in heard and heard[event.run] is None
            heard[event.run] = None if ended or event.kind == "run.finished" else event.at
        return rollouts_of(events, self._clock(), heard)

    def _select(
        self,
        *,
        run: Collection[str] | None = None,
        kind: Collection[str] | None = None,
        environment: str | None = None,
        rollout: Collection[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Event]:
        return self._store.select(
            Query(
                run=run,
                kind=kind,
                environment=environment,
                rollout=rollout,
                limit=limit,
                offset=offset,
            )
        )

    async def _read(self, read: Callable[[], T]) -> T:
        def told() -> T:
            try:
                return read()
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                # Appending checks every event, so one without its data was not written by us.
                raise LedgerCorrupt(
                    f"the ledger holds an event that buildonce did not write: {error!r}",
                    remedy="restore the file from a copy, or move it away to start afresh",
                ) from error

        return await anyio.to_thread.run_sync(told)


def _runs(events: Iterable[Event]) -> set[str]:
    return {event.run for event in events}
