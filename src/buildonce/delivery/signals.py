"""Ctrl-C and SIGTERM end a command in an orderly way: the rollout under way is put back first."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from buildonce.errors import BuildonceError, ExitCode


class Interrupted(BuildonceError):
    """SIGINT or SIGTERM ended the command."""

    exit_code = ExitCode.INTERRUPTED


@asynccontextmanager
async def ended_by_signals(say: Callable[[str], None]) -> AsyncIterator[None]:
    """Run the body until it ends or SIGINT or SIGTERM cancels it.

    Raises:
        Interrupted: a signal came before the body had ended.
    """
    received: list[signal.Signals] = []
    failure: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                again = " again" if received else ""
                received.append(number)
                scope.cancel()
                with suppress(OSError):  # the reader of a pipe may have got the signal, too
                    say(f"{number.name}{again}: ending; what was begun is put back first")

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(watch, scope)
            try:
                yield
            except Exception as error:
                failure = error  # the task group would wrap it
        group.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise Interrupted(f"interrupted by {received[0].name}")
    if failure is not None:
        raise failure
