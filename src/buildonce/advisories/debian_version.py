"""The order of Debian's version numbers, as deb-version(7) defines it.

debian_key("1:1.2.13.dfsg-1") < debian_key("1:1.2.13.dfsg-1+deb12u1")     # True
debian_key("3.0.16-1~deb12u1") < debian_key("3.0.16-1")               # "~" is before all
"""

from __future__ import annotations

import re
from typing import Any

_PARTS = re.compile(r"(\D*)(\d*)")
_VALID = re.compile(r"(?:\d+:)?[A-Za-z0-9.+:~^-]+")


def debian_key(version: str) -> tuple[Any, ...]:
    """A key that sorts versions as dpkg does.

    Raises:
        ValueError: it is no version of a Debian package.
    """
    version = version.strip()
    if not _VALID.fullmatch(version):
        raise ValueError(f"{version!r} is no Debian version")
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return (int(epoch), _alternating(upstream), _alternating(revision))


def _alternating(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Text and numbers in turn; each piece of text as the weights of its characters."""
    # Every piece of text ends with a 0, so that its end sorts after "~" and before all else; the
    # final pair makes the end of the whole version an end of text too.
    pairs = [(m.group(1), m.group(2)) for m in _PARTS.finditer(text) if m.group(0)]
    return tuple(
        ((*(_weight(c) for c in letters), 0), int(digits or "0"))
        for letters, digits in [*pairs, ("", "")]
    )


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
