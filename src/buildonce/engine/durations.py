"""Lengths of time as Go writes them: `1h30m`, `2.5s`, `100ms`."""

from __future__ import annotations

import re

from buildonce.engine.errors import QueryFailed

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 60 * _UNITS["m"]
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def nanoseconds(text: str) -> int:
    """The length that `text` names.

    Raises:
        QueryFailed: it names none.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = _PART.findall(rest)
    if rest == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise QueryFailed(f'time: invalid duration "{text}"')
    return sign * round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def shown(length: int) -> str:
    """A length in nanoseconds as text; zero is `0s`."""
    if length < 0:
        return f"-{shown(-length)}"
    for unit in ("ns", "µs", "ms"):
        if 0 < length < _UNITS["s"] and length < 1000 * _UNITS[unit]:
            return f"{_decimal(length, _UNITS[unit])}{unit}"
    hours, rest = divmod(length, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
