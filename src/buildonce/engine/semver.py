"""Versions as tags name them (`v1.2.3-rc.1`), in the order of semver.org, 2.0.0."""

from __future__ import annotations

import re

_IDENTIFIER = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    r"v(0|[1-9]\d*)(?:\.(0|[1-9]\d*)(?:\.(0|[1-9]\d*)"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)


def valid(text: str) -> bool:
    """Whether it is a version; the last numbers may be missing, as Go allows."""
    return _VERSION.fullmatch(text) is not None


def order(text: str) -> tuple[tuple[int, ...], bool, list[tuple[bool, int, str]], str]:
    """What versions are sorted by, the newest last; of two that are equal, by their text."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no version")
    numbers = tuple(int(number or 0) for number in found.groups()[:3])
    early = (found[4] or "").split(".") if found[4] else []
    parts = [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in early]
    return numbers, not parts, parts, text
