"""Chooses how a run is shown, and keeps showing it.

display = open_display("auto", model, interactive=True)
async with display.showing():
    display.output(b"...")           # what the program printed, if it goes through us
display.finish("3 executed, 9 cached, 2.1 s")
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Literal, Protocol

from buildonce.engine.events import EngineEvent, NoteEvent, OnEvent
from buildonce.engine.progress.model import Model

Mode = Literal["auto", "tty", "plain", "quiet"]
MODES: tuple[Mode, ...] = ("auto", "tty", "plain", "quiet")
_INTERVAL = 0.1  # seconds between two pictures
_MOST_WAITING = 5_000  # lines of output not shown yet; the program waits beyond


class View(Protocol):
    """One way to show a model; see `plain.py` and `live.py`."""

    def pending(self) -> str:
        """The characters to write now."""

    def last(self, summary: str) -> str:
        """The characters to write at the end."""

    def note(self, text: str) -> None:
        """Show a message of the tool itself."""


class Display:
    """Writes what a view has to say, without ever making the event loop wait for a terminal.

    Attributes:
        takes_output: the program's output must come through `output`.
    """

    def __init__(self, view: View | None, write: Callable[[str], None]) -> None:
        from buildonce.engine.progress.live import LiveView

        self._view = view
        self._write = write
        self._live = view if isinstance(view, LiveView) else None
        self._wake = asyncio.Event()
        self._shown = asyncio.Event()
        self.takes_output = self._live is not None

    def note(self, text: str) -> None:
        """Show a message of the tool itself."""
        if self._view:
            self._view.note(text)
            self._wake.set()

    def telling(self, model: Model) -> OnEvent:
        """What takes the engine's events: notes are shown at once, the rest is the model's."""

        def tell(event: EngineEvent) -> None:
            if isinstance(event, NoteEvent):
                self.note(event.text)
            else:
                model.apply(event)

        return tell

    async def output(self, data: bytes) -> None:
        """Show output of the program; waits while the terminal is behind."""
        if self._live is None:
            return
        self._live.output(data)
        self._wake.set()
        if self._live.waiting > _MOST_WAITING:
            self._shown.clear()
            await self._shown.wait()

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Show the model inside the block."""
        if self._view is None:
            yield
            return
        task = asyncio.create_task(self._show(self._view))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._shown.set()

    async def _show(self, view: View) -> None:
        while True:
            if text := view.pending():
                # A thread: a terminal that is stopped (Ctrl-S) must not stop the server. Shielded:
                # what is being written is written whole.
                writing = asyncio.create_task(asyncio.to_thread(self._write, text))
                try:
                    await asyncio.shield(writing)
                except asyncio.CancelledError:
                    await asyncio.wait([writing], timeout=1)
                    raise
            self._wake.clear()
            self._shown.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _INTERVAL)
            await asyncio.sleep(_INTERVAL / 5)

    def finish(self, summary: str) -> None:
        """Show the end; call it after `showing`."""
        if self._view:
            self._write(self._view.last(summary))


def open_display(
    mode: Mode,
    model: Model,
    *,
    patient: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Display:
    """The display for this process' standard error.

    Args:
        patient: wait for whoever reads it; otherwise lines that nobody reads are dropped.
    """
    terminal = sys.stderr.isatty() and environ.get("TERM", "dumb") != "dumb"
    if mode == "auto":
        mode = "tty" if terminal else "plain"
    writer = Writer(2, patient=patient)
    if mode == "quiet":
        return Display(None, writer.write)
    if mode == "tty":
        from buildonce.engine.progress.live import LiveView, Terminal

        live = LiveView(
            model,
            Terminal(2),
            interactive=sys.stdin is not None and sys.stdin.isatty(),
            colours="NO_COLOR" not in environ,
        )
        return Display(live, writer.write)
    from buildonce.engine.progress.plain import PlainView

    return Display(PlainView(model, time.time), writer.write)


class Writer:
    """Writes to a file descriptor that may be a pipe which nobody reads."""

    def __init__(self, descriptor: int, *, patient: bool) -> None:
        self._descriptor = descriptor
        self._may_drop = not patient and _is_pipe(descriptor)

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with contextlib.suppress(BrokenPipeError, OSError):
            while data:
                # A pipe that is ready takes this much at once.
                piece = data[: select.PIPE_BUF] if self._may_drop else data
                if self._may_drop and not select.select([], [self._descriptor], [], 0)[1]:
                    return
                data = data[os.write(self._descriptor, piece) :]


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
