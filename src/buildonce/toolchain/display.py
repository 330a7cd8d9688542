"""How `setup` and `doctor` speak: live lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from buildonce.toolchain.doctor import Part, State
from buildonce.toolchain.steps import Outcome, Result

_EVERY_SECONDS = 10.0
_MARKS = {
    Result.SKIPPED: "[green]✓[/]",
    Result.DONE: "[green]✓[/]",
    Result.FAILED: "[red]✗[/]",
    Result.NOT_TRIED: "[yellow]-[/]",
}
_STATES = {State.OK: "[green]✓[/]", State.DEGRADED: "[yellow]![/]", State.MISSING: "[red]✗[/]"}


class StepsDisplay:
    """The report of a set-up; a context manager.

    On a terminal each running step is a line that changes; elsewhere a step says what it is at
    every ten seconds, so that a log shows life without growing long.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._doing: dict[str, str] = {}
        self._live = (
            Live(console=self.console, refresh_per_second=8, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> StepsDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, name: str) -> None:
        self._began[name] = self._said[name] = time.monotonic()
        self._doing[name] = ""
        if self._live:
            self._draw()
        else:
            self.console.print(f"• {name} …")

    def progress(self, name: str, line: str) -> None:
        self._doing[name] = line
        now = time.monotonic()
        if self._live:
            self._draw()
        elif now - self._said.get(name, 0.0) >= _EVERY_SECONDS:
            self._said[name] = now
            self.console.print(f"  {name}: {escape(line)} ({now - self._began[name]:.0f} s)")

    def finished(self, outcome: Outcome) -> None:
        self._doing.pop(outcome.name, None)
        if self._live:
            self._draw()
        took = f" [dim]{outcome.seconds:.1f} s[/]" if outcome.result is Result.DONE else ""
        first, *rest = outcome.detail.splitlines() or [""]
        self.console.print(f"{_MARKS[outcome.result]} {outcome.name}: {escape(first)}{took}")
        for line in rest:
            self.console.print(escape(line))
        if outcome.error is not None and outcome.error.remedy:
            self.console.print(f"  try: {escape(outcome.error.remedy)}")

    def _draw(self) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 1))
        for name, line in self._doing.items():
            seconds = time.monotonic() - self._began.get(name, time.monotonic())
            table.add_row(Spinner("dots"), name, f"[dim]{seconds:.0f} s {escape(line[:80])}[/]")
        self._live.update(table)


def show_parts(parts: Sequence[Part]) -> None:
    """One line a part; below those that are not well, what to type."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(part.name) for part in parts)
    for part in parts:
        version = f" [bold]{escape(part.version)}[/]" if part.version else ""
        console.print(
            f"{_STATES[part.state]} {part.name:<{width}} {version} {escape(part.found)}".rstrip()
        )
        if part.remedy:
            console.print(f"  {'':<{width}}  try: {escape(part.remedy)}")
