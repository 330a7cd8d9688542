"""Patterns of names: `*` stands for anything but a slash, `**` for anything, all else for itself.

matches("https://github.com/acme/shop", ["https://github.com/acme/*"])     # True
matches("https://github.com/acme/shop/evil", ["https://github.com/acme/*"])   # False
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WILD = re.compile(r"\*\*|\*")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of the patterns is the whole of the name; upper and lower case differ."""
    return any(_expression(pattern).fullmatch(name) for pattern in patterns)


def _expression(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    for wild in _WILD.finditer(pattern):
        parts += [re.escape(pattern[end : wild.start()]), ".*" if wild[0] == "**" else "[^/]*"]
        end = wild.end()
    parts.append(re.escape(pattern[end:]))
    return re.compile("".join(parts), re.DOTALL)
