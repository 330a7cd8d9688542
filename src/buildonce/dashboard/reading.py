"""The ledger for the length of one request.

It is opened anew each time: it may not be there yet when the dashboard starts, and may be replaced
while it runs. A ledger that is absent reads as one without events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio.to_thread
from starlette.requests import Request

from buildonce.dashboard.settings import Settings
from buildonce.ledger import Event, Ledger, LedgerMissing
from buildonce.ledger.store import Query


class NoStore:
    """A store without events, for where there is no file."""

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        raise NotImplementedError("the dashboard only reads")

    def select(self, query: Query) -> list[Event]:
        return []

    def close(self) -> None:
        pass


def settings_of(request: Request) -> Settings:
    """The dashboard's configuration."""
    settings: Settings = request.app.state.settings
    return settings


@asynccontextmanager
async def reading(request: Request) -> AsyncIterator[Ledger]:
    """The ledger, open for reading.

    Raises:
        LedgerError: it is there but cannot be read (locked, damaged, ...).
    """
    path = settings_of(request).ledger
    ledger = Ledger(NoStore())
    if path is not None:
        with suppress(LedgerMissing):
            ledger = await anyio.to_thread.run_sync(lambda: Ledger.open(path, read_only=True))
    try:
        yield ledger
    finally:
        ledger.close()
