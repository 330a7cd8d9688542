"""Ending in an orderly way when somebody presses Ctrl-C or a CI vendor stops the job."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from buildonce.errors import BuildonceError, ExitCode


class Interrupted(BuildonceError):
    """SIGINT or SIGTERM ended the run."""

    exit_code = ExitCode.INTERRUPTED


@asynccontextmanager
async def until_signal(say: Callable[[str], None]) -> AsyncIterator[None]:
    """Run the body until it ends, or SIGINT or SIGTERM cancels it.

    Args:
        say: tells the user what is going on.

    Raises:
        Interrupted: a signal came. What the body raised while it ended is its cause.
    """
    received: list[signal.Signals] = []
    body_error: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if received:
                    say(f"{number.name} again: what was begun is still being put back")
                    continue
                received.append(number)
                say(f"{number.name}: ending; what was begun is put back first")
                scope.cancel()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(watch, scope)
            try:
                yield
            except Exception as error:
                body_error = error  # kept out of the group, which would wrap it
        group.cancel_scope.cancel()
    if received:
        cause = f": {body_error}" if isinstance(body_error, BuildonceError) else ""
        raise Interrupted(f"interrupted by {received[0].name}{cause}") from body_error
    if body_error is not None:
        raise body_error
