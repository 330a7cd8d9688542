"""A run on a terminal: the program's output above, a live tree below.

    view = LiveView(model, Terminal(2))
    view.output(b"hello\\n")             # what the program printed
    terminal.write(view.pending())       # ten times a second

The tree is the last thing on the screen; each time it is painted anew, it is wiped first, what the
program printed meanwhile is written where it was, and so scrolls up as it would have without us.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from buildonce.engine.progress import tree
from buildonce.engine.progress.model import Model
from buildonce.engine.progress.text import RESET, clean

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_PROMPT_AFTER = 0.15  # seconds that an unfinished line stands before it is taken for a question
_MOST_ROWS = 16


class Screen(Protocol):
    """A terminal to paint on."""

    def size(self) -> tuple[int, int]:
        """Columns and rows."""


class Terminal:
    """The terminal behind a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._descriptor)
        except OSError:
            return 80, 24
        return max(size.columns, 20), max(size.lines, 5)


class LiveView:
    """Paints a model.

    Args:
        interactive: the program may ask questions: an unfinished line of its output gets the
            screen for itself, cursor behind it, until it goes on.
        colours: whether to write colours of our own.
    """

    def __init__(
        self,
        model: Model,
        screen: Screen,
        *,
        interactive: bool = False,
        colours: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._screen = screen
        self._interactive = interactive
        self._colours = colours
        self._clock = clock
        self._painted = 0  # rows below the program's output
        self._below: list[str] = []  # what they show
        self._whole: list[str] = []
        self._partial = ""
        self._asked: str | None = None  # the unfinished line that the cursor stands behind
        self._undecoded = b""
        self._partial_since = 0.0

    def output(self, data: bytes) -> None:
        """Take what the program wrote; it is shown when painting."""
        data = self._undecoded + data
        self._undecoded = _incomplete(data)
        text = data[: len(data) - len(self._undecoded)].decode("utf-8", "replace")
        *whole, self._partial = (self._partial + text.replace("\r\n", "\n")).split("\n")
        self._whole += whole
        self._partial_since = self._clock()

    def note(self, text: str) -> None:
        """A message of the tool itself, above the tree."""
        self._whole += clean(text).splitlines()

    @property
    def waiting(self) -> int:
        """Lines of output that are not on the screen yet."""
        return len(self._whole)

    def pending(self) -> str:
        """The characters that bring the screen up to date."""
        begun = self._continue_question()
        if self._asked is not None:
            return begun
        return begun + self._picture()

    def _picture(self) -> str:
        now = self._clock()
        width, height = self._screen.size()
        above = self._take()
        below = []
        partial = _shown(self._partial)
        if partial:
            plain = clean(self._partial)
            below.append(partial if len(plain) < width else _cut(plain, width - 1))
        asking = self._interactive and partial and now - self._partial_since >= _PROMPT_AFTER
        if not asking:
            rows = max(3, min(height - 4, _MOST_ROWS))
            below += tree.render(self._model, now=now, width=width - 1, height=rows, cut=_cut)
        if not above and below == self._below and not asking:
            return ""
        if asking:
            self._asked = self._partial
        self._below = below
        return self._replace(above, below, keep_cursor=bool(asking))

    def last(self, summary: str) -> str:
        """The characters that leave the screen as it stays."""
        now = self._clock()
        width, _ = self._screen.size()
        begun = self._continue_question()
        if self._asked is not None:
            begun += "\n"
            self._asked, self._painted, self._partial = None, 0, ""
        if self._partial:
            self._whole.append(self._partial)
            self._partial = ""
        above = self._take()
        above += tree.final(self._model, now=now, width=width - 1, cut=_cut)
        above.append(summary)
        return begun + self._replace(above, [], keep_cursor=True)

    def _take(self) -> list[str]:
        """The whole lines of output since the last time, as they go on the screen."""
        lines, self._whole = self._whole, []
        return [_shown(line) for line in lines]

    def _continue_question(self) -> str:
        """What follows an unfinished line that has the screen for itself.

        It is written where the cursor is: behind the line, or below it, when the user has answered
        and the terminal has shown that.
        """
        if self._asked is None:
            return ""
        line = self._whole[0] if self._whole else self._partial
        more = line[len(self._asked) :]
        if not line.startswith(self._asked) or "\r" in more:
            self._asked = None
            return ""
        if not self._whole:
            self._asked = self._partial
            return _shown(more)
        del self._whole[0]
        self._asked, self._painted, self._below = None, 0, []
        return _shown(more) + "\n"

    def _replace(self, above: list[str], below: list[str], *, keep_cursor: bool) -> str:
        up = f"\x1b[{self._painted - 1}A" if self._painted > 1 else ""
        text = f"\r{up}\x1b[J" if self._painted else ""
        text += "".join(f"{line}\n" for line in above)
        text += "\n".join(below)
        self._painted = len(below)
        text = (_SHOW_CURSOR if keep_cursor or not below else _HIDE_CURSOR) + text
        return text if self._colours else _without_colours(text)


def _shown(line: str) -> str:
    text = clean(line, colours=True)
    return text + RESET if "\x1b" in text else text


def _without_colours(text: str) -> str:
    import re

    return re.sub("\x1b\\[[0-9;:]*m", "", text)


def _incomplete(data: bytes) -> bytes:
    """The beginning of a UTF-8 character at the very end of `data`."""
    for length in range(1, min(3, len(data)) + 1):
        byte = data[-length]
        if byte & 0xC0 == 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[-length:] if length < needed else b""
        if byte & 0x80 == 0:
            return b""
    return b""


def _cut(text: str, width: int) -> str:
    if len(text) <= width and text.isascii():
        return text
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 1)) + "…"
