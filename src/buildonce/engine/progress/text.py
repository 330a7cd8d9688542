r"""Foreign text made safe for a terminal.

Names and logs come from repositories that nobody here wrote; a terminal obeys what it is shown.

    >>> clean("ok\x1b]0;title\x07 \x1b[31mred\x1b[0m\x1b[2J")
    'ok red'
    >>> clean("\x1b[31mred\x1b[0m", colours=True)
    '\x1b[31mred\x1b[0m'
"""

from __future__ import annotations

import re

_SEQUENCES = re.compile(
    "(?P<colour>\x1b\\[[0-9;:]{0,64}m)"
    # Strings: titles, clipboards, links, … Each ends where the next sequence begins, at the latest.
    "|(?:\x1b[P\\]X^_k]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,64}[@-~]?"  # cursor movement, clearing, modes
    "|\x1b[ -/]{0,64}[0-~]?"
)
# What is left of control characters, and the ones that reorder text to hide what it says.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_COLOURED = re.compile("(\x1b\\[[0-9;:]*m)")
RESET = "\x1b[0m"


def clean(text: str, *, colours: bool = False) -> str:
    """`text` without anything a terminal acts upon, except tabs, newlines and, if asked, colours.

    What a carriage return would overwrite is left out, so a progress bar shows its last state.
    """

    def keep(found: re.Match[str]) -> str:
        return found["colour"] or "" if colours else ""

    text = _SEQUENCES.sub(keep, text.replace("\r\n", "\n"))
    if "\r" in text:
        text = "\n".join(_overwritten(line) for line in text.split("\n"))
    if not colours:
        return _CONTROLS.sub("", text)
    parts = _COLOURED.split(text)
    return "".join(p if i % 2 else _CONTROLS.sub("", p) for i, p in enumerate(parts))


def _overwritten(line: str) -> str:
    parts = [part for part in line.split("\r") if part]
    return parts[-1] if parts else ""


def one_line(text: str, longest: int = 200) -> str:
    """`text` as a single line of at most `longest` characters, without colours."""
    line = " ".join(clean(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def duration(seconds: float) -> str:
    """A duration for people: `0.4s`, `12.3s`, `2m05s`, `1h02m`."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
