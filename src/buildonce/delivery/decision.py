"""Commit or undo, for all environments of a rollout together; decided once, and first of all.

    decision.undo(cause)                     # from any environment that fails: all go back
    await decision.commit(record)            # once all are proven: all stay

Whoever decides first wins: from then on the other word changes nothing. A commit counts from the
moment that it is in the ledger, so that a process killed before it leaves "undo" to its successors,
and one killed after it leaves "commit".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import anyio


class Decision:
    """Open until somebody decides.

    Attributes:
        cause: the first failure, where it was decided to undo.
        where: the environment that it happened in; None for the rollout as a whole.
    """

    def __init__(self) -> None:
        self.state: Literal["open", "commit", "undo"] = "open"
        self.cause: BaseException | None = None
        self.where: str | None = None
        self._made = anyio.Event()

    def undo(self, cause: BaseException, where: str | None = None) -> None:
        """Everything goes back, unless it was decided that it stays."""
        if self.state == "open":
            self.state, self.cause, self.where = "undo", cause, where
            self._made.set()

    async def commit(self, record: Callable[[], Awaitable[None]]) -> bool:
        """Everything stays, unless it was decided to undo; False then.

        Args:
            record: makes it known to whoever comes after a crash. When it raises, all is undone.
        """
        if self.state != "open":
            return self.state == "commit"
        self.state = "commit"
        with anyio.CancelScope(shield=True):
            try:
                await record()
            except BaseException as error:
                self.state, self.cause = "undo", error
                raise
            finally:
                self._made.set()
        return True

    async def made(self) -> bool:
        """Wait until it is decided; whether to commit."""
        await self._made.wait()
        return self.state == "commit"
