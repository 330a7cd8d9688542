"""Profiles: values laid over the tables, for a machine or accounts that differ.

    BUILDONCE_PROFILE=offline                # [profiles.offline.images] replaces keys of [images]
    BUILDONCE_PROFILE=offline,aws-simulated  # several, each over those before it

An environment to which a profile gives another target is the profile's alone: what a place on this
machine is made of (a port) says nothing of one in an account.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildonce.config.lines import KeyPath, Lines
from buildonce.config.mistakes import ConfigError, did_you_mean

PROFILE_VARIABLE = "BUILDONCE_PROFILE"

Table = dict[str, Any]


def lay_over(data: Table, names: str | None, path: Path) -> tuple[Table, tuple[KeyPath, ...]]:
    """The tables with the values of profiles in them, and where those stand, the topmost first.

    Args:
        data: the whole file; `profiles` is taken out of it.
        names: of the profiles, separated by commas; None or "" for none.
        path: of the file, for messages.

    Raises:
        ConfigError: there is no such profile.
    """
    profiles = data.pop("profiles", {})
    origins: list[KeyPath] = []
    for name in filter(None, (part.strip() for part in (names or "").split(","))):
        if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
            known = list(profiles) if isinstance(profiles, dict) else []
            raise ConfigError(
                f"{path}: there is no profile {name!r}{did_you_mean(name, known)}",
                remedy=f"set {PROFILE_VARIABLE} to one of: {', '.join(known) or '(none defined)'}; "
                "or unset it",
            )
        data = _merge(_without_moved(data, profiles[name]), profiles[name])
        origins.insert(0, ("profiles", name))
    return data, tuple(origins)


def line_of(lines: Lines, keys: KeyPath, origins: tuple[KeyPath, ...]) -> int | None:
    """The line of a key: in the topmost profile that has it, else in the tables, or near there."""
    found = (lines.line((*origin, *keys)) for origin in origins)
    return next((line for line in found if line is not None), None) or lines.nearest(keys)


def _without_moved(below: Table, above: Table) -> Table:
    """The tables without those environments that the profile moves to another target."""
    under, over = below.get("environments"), above.get("environments")
    if not isinstance(under, dict) or not isinstance(over, dict):
        return below
    kept = {
        name: table
        for name, table in under.items()
        if not _target(over.get(name)) or _target(over[name]) == (_target(table) or "local")
    }
    return {**below, "environments": kept}


def _target(table: object) -> object:
    return table.get("target") if isinstance(table, dict) else None


def _merge(below: Table, above: Table) -> Table:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged
