"""Finding the programs buildonce uses, and building the ones the machine does not have.

    found = find("buildctl")            # Found(path=..., origin="cache", version="v0.26.3") or None
    found = await ensure("buildctl", progress=print)

The order is: what the user configured (`BUILDONCE_BUILDCTL=/path`), the PATH when the version there
will do, the user's cache, and last a build from the pinned Go module into that cache. The cache is
addressed by content: the digest of `go.mod`, `go.sum` and the flags, so another pin is another
folder, and an old one can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain import golang
from buildonce.toolchain.processes import Progress, run, silent
from buildonce.toolchain.table import (
    GO_MODULES,
    OWN_MODULES,
    SYSTEM_PROGRAMS,
    GoModule,
    OwnModule,
    SystemProgram,
    parse_version,
)
from buildonce.toolchain.whole import whole_folder, write_whole

Origin = Literal["configured", "path", "cache", "built"]

# What debuggers need is stripped from the program in the end; not to make it saves a sixth.
_QUICKLY = "-gcflags=all=-dwarf=false"
_SOURCES_REMEDY = (
    "see the lines above; modules come from GOPROXY, which this machine must reach, "
    "then run `buildonce setup` again"
)

# Where Debian keeps administrators' programs; an ordinary user's PATH lacks them.
_ADMIN_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True)
class Found:
    """A program at hand: its path, where it was found, its version ("" when it tells none)."""

    path: Path
    origin: Origin
    version: str


Program = GoModule | OwnModule | SystemProgram


def programs() -> dict[str, Program]:
    """Every program by name."""
    table: dict[str, Program] = {}
    for module in GO_MODULES:
        table.update(dict.fromkeys(module.packages, module))
    table.update({own.name: own for own in OWN_MODULES})
    table.update({program.name: program for program in SYSTEM_PROGRAMS})
    return table


def variable(name: str) -> str:
    """The environment variable that configures the program `name`: "BUILDONCE_BUILDKITD"."""
    return "BUILDONCE_" + name.upper().replace("-", "_")


def find(name: str, *, goarch: str | None = None) -> Found | None:
    """The program `name` if the machine has it; None when it would have to be made or installed.

    Args:
        name: "buildkitd", "buildctl", "crane", "shim", "runc", "haproxy", ...
        goarch: the architecture it must run on; this machine's when None (only for "shim").

    Raises:
        BuildonceError: the variable that configures it names no executable file.
        KeyError: no such program is known.
    """
    program = programs()[name]
    if configured := _configured(name):
        return configured
    match program:
        case SystemProgram():
            return _on_path(program.commands, program)
        case OwnModule():
            arch = goarch or golang.architecture()
            go = golang.find_go(program.go)
            built = _own_target(program, go.version, arch) / program.name if go else None
            version = f"{go.version} {arch}" if go else ""
        case GoModule():
            if on_path := _on_path((name,), program):
                return on_path
            built = _module_target(program) / name
            version = program.version
    if built and built.is_file():
        return Found(built, "cache", version)
    return None


async def ensure(name: str, *, goarch: str | None = None, progress: Progress = silent) -> Found:
    """The program `name`, built first where it has to be.

    Two processes may ask for the same one at once: the second waits for the first's result. An
    interrupted build leaves nothing behind.

    Raises:
        BuildonceError: it cannot be built, or is one of the distribution and is not installed.
    """
    if found := find(name, goarch=goarch):
        return found
    program = programs()[name]
    match program:
        case SystemProgram():
            raise BuildonceError(
                f"{name} is not installed ({program.needed_for})",
                remedy="`buildonce setup` installs it; "
                f"or type: sudo apt-get install --no-install-recommends {program.package}",
            )
        case OwnModule():
            arch = goarch or golang.architecture()
            go = await golang.ensure_go(program.go, progress=progress)
            await _build_own(program, go, arch, progress)
        case GoModule():
            go = await golang.ensure_go(program.go, progress=progress)
            await _build_module(program, go, progress)
    found = find(name, goarch=goarch)
    if found is None:
        raise BuildonceError(
            f"{name} was built and is not where it should be",
            remedy=f"remove {places.cache() / 'bin'} and run `buildonce setup` again",
        )
    return Found(found.path, "built", found.version)


def find_static(name: str) -> Found | None:
    """As `find`, but only a program that needs no library: one that runs in any container.

    Where the one on the PATH is linked dynamically, the pinned one in the cache is taken.
    """
    found = find(name)
    if found is None or is_static(found.path):
        return found
    module = programs()[name]
    if isinstance(module, GoModule):
        built = _module_target(module) / name
        if built.is_file():
            return Found(built, "cache", module.version)
    return None


async def ensure_static(name: str, *, progress: Progress = silent) -> Found:
    """As `ensure`, for a program of a Go module that is to run in any container.

    Raises:
        BuildonceError: it cannot be built.
    """
    if found := find_static(name):
        return found
    module = programs()[name]
    if not isinstance(module, GoModule):
        raise BuildonceError(f"{name} is not built from Go sources, so it is not static")
    go = await golang.ensure_go(module.go, progress=progress)
    await _build_module(module, go, progress)
    return Found(_module_target(module) / name, "built", module.version)


def is_static(program: Path) -> bool:
    """Whether a program is an ELF file that asks for no dynamic linker."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF" or header[4] != 2:  # 64-bit, as all that Go builds here
            return False
        order: Literal["little", "big"] = "little" if header[5] == 1 else "big"

        def number(start: int, size: int, of: bytes = header) -> int:
            return int.from_bytes(of[start : start + size], order)

        file.seek(number(32, 8))
        size, count = number(54, 2), number(56, 2)
        segments = [file.read(size) for _ in range(count)]
    interpreter = 3  # PT_INTERP
    return all(number(0, 4, segment) != interpreter for segment in segments)


def suits(program: GoModule | SystemProgram, version: str) -> bool:
    """Whether a program on the PATH that tells `version` may be used."""
    if program.minimum is None:
        return True
    parsed = parse_version(version)
    if parsed is None or parsed < program.minimum:
        return False
    return isinstance(program, SystemProgram) or parsed < program.below


async def _build_module(module: GoModule, go: golang.Go, progress: Progress) -> None:
    target = _module_target(module)
    with tempfile.TemporaryDirectory(prefix="buildonce-") as folder:
        source = Path(folder)
        for name in ("go.mod", "go.sum"):
            (source / name).write_bytes((module.folder / name).read_bytes())
        await _fetch(module, go, source, progress)
        async with golang.build_lock(progress):
            if target.is_dir():
                return
            with whole_folder(target) as making:
                await _build(
                    go,
                    what=f"building {', '.join(module.packages)} {module.version}",
                    source=source,
                    output=making,
                    packages=list(module.packages.values()),
                    flags=_flags(module),
                    goarch=golang.architecture(),
                    progress=progress,
                )


async def _fetch(module: GoModule, go: golang.Go, source: Path, progress: Progress) -> None:
    """Bring a module's sources into Go's cache, while another module is being compiled."""
    what = f"fetching {', '.join(module.packages)} {module.version}"

    def report(line: str) -> None:
        if line.startswith("go: downloading"):
            progress(f"{what}: {line.removeprefix('go: ')}")

    await run(
        # Of all that a module names, only what its programs are made of; no word about it.
        [str(go.command), "list", "-deps", "-f", "{{/**/}}", *module.packages.values()],
        what=what,
        remedy=_SOURCES_REMEDY,
        cwd=source,
        env=golang.environment(),
        progress=report,
    )


async def _build_own(program: OwnModule, go: golang.Go, goarch: str, progress: Progress) -> None:
    if not (program.folder / "go.mod").is_file():
        raise BuildonceError(
            f"the sources of {program.name} are not at {program.folder}",
            remedy="install buildonce again: this copy is not complete",
        )
    target = _own_target(program, go.version, goarch)
    async with golang.build_lock(progress):
        if target.is_dir():
            return
        with whole_folder(target) as making:
            await _build(
                go,
                what=f"building {program.name} for {goarch}",
                source=program.folder,
                output=making / program.name,
                packages=["."],
                flags=["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"],
                goarch=goarch,
                progress=progress,
            )


async def _build(
    go: golang.Go,
    *,
    what: str,
    source: Path,
    output: Path,
    packages: list[str],
    flags: list[str],
    goarch: str,
    progress: Progress,
) -> None:
    progress(f"{what} with {go.version}")
    compiled = 0

    def report(line: str) -> None:
        nonlocal compiled
        if " " not in line:  # `-v` prints the path of each package as it is compiled
            compiled += 1
            if compiled % 50 == 0:
                progress(f"{what}: {compiled} packages compiled")

    # A folder as output (with the slash) takes every program by its own name.
    destination = f"{output}/" if output.is_dir() else str(output)
    await run(
        [str(go.command), "build", "-v", _QUICKLY, *flags, "-o", destination, *packages],
        what=what,
        remedy=_SOURCES_REMEDY,
        cwd=source,
        env=golang.environment(goarch),
        progress=report,
    )


def _flags(module: GoModule) -> list[str]:
    linker = " ".join(("-s", "-w", *module.ldflags)).format(version=module.version)
    return ["-trimpath", "-buildvcs=false", "-ldflags", linker]


def _module_key(module: GoModule) -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((module.folder / name).read_bytes())
    digest.update(json.dumps([module.packages, _flags(module)]).encode())
    return digest.hexdigest()[:16]


def _module_target(module: GoModule) -> Path:
    return places.cache() / "bin" / f"{module.name}-{module.version}-{_module_key(module)}"


def _own_target(program: OwnModule, go_version: str, goarch: str) -> Path:
    digest = hashlib.sha256(f"{go_version} {goarch}".encode())
    for file in sorted(program.folder.rglob("*")):
        if file.name.endswith("_test.go"):
            continue
        if file.suffix == ".go" or file.name in ("go.mod", "go.sum"):
            digest.update(f"\0{file.relative_to(program.folder)}\0".encode())
            digest.update(file.read_bytes())
    return places.cache() / "bin" / f"{program.name}-{goarch}-{digest.hexdigest()[:16]}"


def _configured(name: str) -> Found | None:
    value = os.environ.get(variable(name))
    if not value:
        return None
    path = Path(value).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise BuildonceError(
            f"{variable(name)}={value} names no program",
            remedy=f"set {variable(name)} to the path of an executable {name}, or unset it",
        )
    return Found(path, "configured", _version(path, programs()[name]))


def _on_path(commands: tuple[str, ...], program: GoModule | SystemProgram) -> Found | None:
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMIN_FOLDERS))
    for command in commands:
        if path := shutil.which(command, path=search):
            version = _version(Path(path), program)
            if suits(program, version):
                return Found(Path(path), "path", version)
    return None


def _version(path: Path, program: Program) -> str:
    """What the program says its version is, asked once for each file there has been at `path`."""
    if isinstance(program, OwnModule):
        return ""
    real = path.resolve()
    facts = real.stat()
    key = f"{real}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}"
    store = places.cache() / "versions.json"
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = json.loads(store.read_text("utf-8"))
    if key not in known:
        known[key] = _ask_version(path, program.version_command)
        with suppress(OSError):  # a cache only: a full disk must not stop a look-up
            write_whole(store, json.dumps(known, indent=1, sort_keys=True))
    return known[key]


def _ask_version(path: Path, arguments: tuple[str, ...]) -> str:
    try:
        answer = subprocess.run(
            [str(path), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    for line in (answer.stdout + "\n" + answer.stderr).splitlines():
        if parsed := parse_version(line):
            return ".".join(map(str, parsed))
    return ""
