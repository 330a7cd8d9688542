r"""Foreign text for a terminal: what a terminal would obey is shown as U+FFFD instead.

Names and messages come from repositories and tools that nobody here wrote. A file name may hold an
escape sequence that hides a failure, or a line break after which it says that all is well.

    >>> visible("\x1b[2Kall is well")
    '\ufffd[2Kall is well'
    >>> on_one_line("a.py\npassed")
    'a.py\ufffdpassed'
"""

from __future__ import annotations

import re

# Control characters but tab and newline, those that reorder what is shown, separators of lines and
# halves of characters (which cannot be written at all).
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text, line by line as it was, without anything that a terminal acts upon."""
    return _OBEYED.sub("\ufffd", text)


def on_one_line(text: str) -> str:
    """The same for what is a single line."""
    return visible(text.replace("\n", "\ufffd"))
