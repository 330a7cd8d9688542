"""Where events are kept: the seam between the ledger's meaning and its storage.

`Ledger` knows what events mean and nothing of files; a store keeps them in order and gives them
back. `SqliteStore` is the one for a machine; one for a team needs these methods only. Stores are
synchronous and safe to call from several threads; the ledger calls them off the event loop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from buildonce.ledger.events import Event


@dataclass(frozen=True)
class Query:
    """Which events; None means "any". With `limit`, the newest ones after skipping `offset`."""

    run: Collection[str] | None = None
    kind: Collection[str] | None = None
    environment: str | None = None
    rollout: Collection[str] | None = None
    limit: int | None = None
    offset: int = 0


class Store(Protocol):
    """An ordered set of events that only grows."""

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        """Keep one event durably; its id is greater than every id given before."""

    def select(self, query: Query) -> list[Event]:
        """The events of the query, always in the order of their ids (oldest first)."""

    def close(self) -> None:
        """Release what is held; may be called twice."""
