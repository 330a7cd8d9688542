"""Platforms as text: `linux/arm64`, and the other ways to write them."""

from __future__ import annotations

import re

from buildonce.engine.errors import QueryFailed

_PART = re.compile(r"[A-Za-z0-9_.-]+")
_SYSTEMS = {"linux", "windows", "darwin", "freebsd", "openbsd", "netbsd", "solaris", "plan9"}
_MACHINES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "arm": ("arm", "v7"),
    **{name: (name, "") for name in ("386", "amd64", "arm64", "ppc64le", "riscv64", "s390x")},
}


def normalize(platform: str, default: str) -> str:
    """`platform` as `system/machine[/variant]`, what is missing taken from `default`.

    Raises:
        QueryFailed: it is not a platform.
    """
    parts = platform.lower().split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise QueryFailed(f'"{platform}": cannot parse platform specifier: invalid argument')
    if len(parts) == 1:
        if parts[0] in _MACHINES:
            parts = ["linux", *parts]
        elif parts[0] in _SYSTEMS:
            parts = [parts[0], default.split("/")[1]]
        else:
            raise QueryFailed(f'"{platform}": unknown operating system or architecture')
    system, machine, *rest = parts
    machine, variant = _MACHINES.get(machine, (machine, ""))
    return "/".join(part for part in (system, machine, *(rest or [variant])) if part)
