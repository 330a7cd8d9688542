"""The base image for a machine that can pull none: Python and git from Debian's packages.

    layout = await make(progress=print)                    # an OCI layout in the user's cache
    await publish("127.0.0.1:5080/base/python:bookworm")   # made when missing, pushed when missing

Made with mmdebstrap from the mirrors this machine is configured for. Nothing of the machine gets
in: no certificate of its own, no host name, no resolver, no proxy, no password of a mirror.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain import binaries, golang, oci
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, run, silent
from buildonce.toolchain.sources import Source, machine_sources
from buildonce.toolchain.whole import whole_folder

SUITE = "bookworm"
NAME = f"base/python:{SUITE}"
PACKAGES = ("ca-certificates", "git", "python3", "python3-pip", "python3-venv")

# Debian 12's release day. mmdebstrap sets every later time to it, so the day of the build is gone;
# Python's byte code is checked by content under it, so it stays valid.
_EPOCH = 1686355200
_CREATED = "2023-06-10T00:00:00Z"

_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# Python writes byte code with references that depend on what else was in memory (version 2 of the
# format has none), and checked by time or by content as it happens. Run by the image's own Python,
# this makes the same bytes of the same sources.
_BYTE_CODE = """
import importlib.util as util, marshal, pathlib
for file in pathlib.Path("/usr").rglob("__pycache__/*.pyc"):
    source = pathlib.Path(util.source_from_cache(str(file)))
    if source.is_file():
        code = marshal.dumps(marshal.loads(file.read_bytes()[16:]), 2)
        checked = (3).to_bytes(4, "little") + util.source_hash(source.read_bytes())
        file.write_bytes(util.MAGIC_NUMBER + checked + code)
    else:
        file.unlink()
"""

# What mmdebstrap leaves of the machine and of the making. `EXTERNALLY-MANAGED` goes because `pip
# install` must work in this image as it does in the public one whose place it takes.
_LEFT_OUT = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/*-",
    "dev/*",
    "run/*",
    "tmp/*",
    "usr/lib/python3*/EXTERNALLY-MANAGED",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*.log",
    "var/log/apt/*",
)

_CONFIG = {
    "Env": [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
    ],
    "Cmd": ["python3"],
}


def made() -> Path | None:
    """The layout in the cache, if it is there."""
    folder = _folder()
    return folder if (folder / "index.json").is_file() else None


async def make(*, progress: Progress = silent) -> Path:
    """The base image's OCI layout in the cache, made when it is not there (about 30 s).

    Raises:
        BuildonceError: mmdebstrap is missing or fails.
    """
    if layout := made():
        return layout
    program = binaries.find("mmdebstrap")
    if program is None:
        raise BuildonceError(
            "the base image cannot be made: mmdebstrap is not installed",
            remedy="sudo apt-get install --no-install-recommends mmdebstrap",
        )
    folder = _folder()
    async with locked(places.cache() / "locks" / f"{folder.name}.lock", waiting=progress):
        if layout := made():
            return layout
        with whole_folder(folder) as making:
            rootfs = making / "rootfs.tar"
            sources = await anyio.to_thread.run_sync(machine_sources, SUITE)
            settings = await anyio.to_thread.run_sync(_apt_settings)
            await run(
                [
                    *(str(program.path), "--variant=minbase", "--format=tar"),
                    f"--include={','.join(PACKAGES)}",
                    *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
                    *(f"--aptopt={setting}" for setting in settings),
                    f'--customize-hook=chroot "$1" python3 -I -B -c {shlex.quote(_BYTE_CODE)}',
                    *(SUITE, str(rootfs)),
                    *(source.line() for source in sources),
                ],
                what=f"making the base image from packages of {SUITE}",
                remedy="see the lines above; `apt-get update` must work on this machine",
                env={"SOURCE_DATE_EPOCH": str(_EPOCH)},
                progress=lambda line: progress(_said(line)) if line.startswith("I: ") else None,
            )
            progress("packing the base image")
            await anyio.to_thread.run_sync(_pack, rootfs, making, sources, settings)
            rootfs.unlink()
    return folder


async def publish(reference: str, *, progress: Progress = silent) -> str:
    """Have the base image in the registry at `reference`; the digest it has there."""
    layout = await make(progress=progress)
    digest = oci.layout_digest(layout)
    if await oci.pushed_digest(reference) != digest:
        await oci.push(layout, reference, progress=progress)
    return digest


def key() -> str:
    """What the image is made from, as a short digest."""
    recipe = [SUITE, PACKAGES, _EPOCH, _DPKG_OPTIONS, _LEFT_OUT, _CONFIG, _BYTE_CODE]
    recipe.append(golang.architecture())
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _folder() -> Path:
    return places.cache() / "base" / f"python-{SUITE}-{key()}"


def _said(line: str) -> str:
    return line.removeprefix("I: ")


def _pack(rootfs: Path, folder: Path, sources: list[Source], settings: list[str]) -> None:
    python = tarfile.TarInfo("./usr/local/bin/python")
    python.type, python.linkname, python.mode = tarfile.SYMTYPE, "/usr/bin/python3", 0o777
    python.mtime = _EPOCH
    lists = _file("./etc/apt/sources.list")
    list_lines = "".join(f"{source.without_password().line()}\n" for source in sources)
    apt = _file("./etc/apt/apt.conf.d/99mirror")
    apt_lines = "".join(f"{s};\n" for s in settings if "proxy" not in s.lower())
    oci.write_layout(
        folder,
        rootfs,
        architecture=golang.architecture(),
        created=_CREATED,
        config=_CONFIG,
        keep=belongs,
        add=[(python, b""), (lists, list_lines.encode()), (apt, apt_lines.encode())],
    )


def belongs(entry: tarfile.TarInfo) -> bool:
    """Whether the entry of the made file system belongs into the image."""
    name = entry.name.removeprefix("./")
    return not any(fnmatch(name, pattern) for pattern in _LEFT_OUT)


def _file(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = 0o644, _EPOCH
    return entry


def _apt_settings() -> list[str]:
    """This machine's apt settings that decide whether its mirrors can be used at all."""
    wanted = re.compile(
        r'^(Acquire::(https?::Proxy(::[^ ]+)?|Check-Valid-Until|Check-Date) "[^"]+");$'
    )
    answer = subprocess.run(
        ["apt-config", "dump"], capture_output=True, text=True, check=False, errors="replace"
    )
    return [m.group(1) for line in answer.stdout.splitlines() if (m := wanted.match(line))]
