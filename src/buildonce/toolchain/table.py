"""The programs buildonce uses, as data: where each comes from and which versions will do.

A new Go tool is a folder `go/<module>/` with `go.mod` and `go.sum` (its `tool` directive pins the
version) and one `GoModule` below. Tools whose dependencies agree may share a module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import buildonce

Version = tuple[int, ...]

SOURCES = Path(buildonce.__file__).parent


@dataclass(frozen=True)
class GoModule:
    """One or more third-party programs, built together from one pinned module.

    Args:
        name: the folder below `toolchain/go/`.
        version: the version that `go.mod` pins, with its `v`.
        packages: program name -> Go package.
        minimum: the oldest version on the PATH that is taken instead of a build.
        below: the first version on the PATH that is no longer taken.
        version_command: the arguments that make the program print its version.
        ldflags: linker flags in addition to `-s -w`; `{version}` is filled in.
        go: the oldest Go that builds it.
        in_containers: checks run it in a container; where no image of it can be pulled, the set-up
            makes one.
    """

    name: str
    version: str
    packages: dict[str, str]
    minimum: Version
    below: Version
    version_command: tuple[str, ...] = ("--version",)
    ldflags: tuple[str, ...] = ()
    go: Version = (1, 25)
    in_containers: bool = False

    @property
    def folder(self) -> Path:
        return SOURCES / "toolchain" / "go" / self.name


@dataclass(frozen=True)
class OwnModule:
    """A program of ours, built from Go sources in this package, for any GOARCH."""

    name: str
    folder: Path
    go: Version = (1, 22)


@dataclass(frozen=True)
class SystemProgram:
    """A program of the distribution.

    Args:
        name: what the others call it.
        package: the Debian package that has it.
        commands: file names to look for, the first found is taken.
        minimum: the oldest version that will do; None when any will.
    """

    name: str
    package: str
    commands: tuple[str, ...]
    version_command: tuple[str, ...] = ("--version",)
    minimum: Version | None = None
    needed_for: str = ""


GO_MODULES: tuple[GoModule, ...] = (
    GoModule(
        name="buildkit",
        version="v0.26.3",
        packages={
            "buildkitd": "github.com/moby/buildkit/cmd/buildkitd",
            "buildctl": "github.com/moby/buildkit/cmd/buildctl",
        },
        minimum=(0, 19),
        below=(1,),
        ldflags=("-X", "github.com/moby/buildkit/version.Version={version}"),
    ),
    GoModule(
        name="crane",
        version="v0.22.1",
        packages={"crane": "github.com/google/go-containerregistry/cmd/crane"},
        minimum=(0, 19),
        below=(1,),
        version_command=("version",),
        ldflags=("-X", "github.com/google/go-containerregistry/cmd/crane/cmd.Version={version}"),
    ),
    GoModule(
        name="gitleaks",
        version="v8.30.1",
        packages={"gitleaks": "github.com/zricethezav/gitleaks/v8"},
        minimum=(8, 30),
        below=(9,),
        version_command=("version",),
        ldflags=("-X", "github.com/zricethezav/gitleaks/v8/version.Version={version}"),
        in_containers=True,
    ),
    GoModule(
        name="cosign",
        version="v2.6.5",
        packages={"cosign": "github.com/sigstore/cosign/v2/cmd/cosign"},
        minimum=(2, 6),
        below=(3,),
        version_command=("version",),
        ldflags=("-X", "sigs.k8s.io/release-utils/version.gitVersion={version}"),
    ),
    GoModule(
        name="osv-scanner",
        version="v2.2.4",
        packages={"osv-scanner": "github.com/google/osv-scanner/v2/cmd/osv-scanner"},
        minimum=(2, 2),
        below=(3,),
        in_containers=True,
    ),
    GoModule(
        name="syft",
        version="v1.52.0",
        packages={"syft": "github.com/anchore/syft/cmd/syft"},
        minimum=(1, 40),
        below=(2,),
        ldflags=("-X", "main.version={version}"),
        go=(1, 26, 3),
        in_containers=True,
    ),
)

OWN_MODULES: tuple[OwnModule, ...] = (OwnModule(name="shim", folder=SOURCES / "engine" / "shim"),)

SYSTEM_PROGRAMS: tuple[SystemProgram, ...] = (
    SystemProgram(
        name="runc", package="runc", commands=("runc",), needed_for="buildkitd's containers"
    ),
    SystemProgram(
        name="haproxy",
        package="haproxy",
        commands=("haproxy",),
        version_command=("-v",),
        minimum=(2, 2),
        needed_for="switching traffic between releases",
    ),
    SystemProgram(
        name="docker-registry",
        package="docker-registry",
        commands=("docker-registry", "registry"),
        minimum=(2, 7),
        needed_for="the loopback registry",
    ),
    SystemProgram(
        name="mmdebstrap",
        package="mmdebstrap",
        commands=("mmdebstrap",),
        needed_for="the base image where none can be pulled",
    ),
)


def parse_version(text: str) -> Version | None:
    """The first dotted number in `text`: "buildctl v0.26.3-rc1 abc" -> (0, 26, 3)."""
    for word in text.replace("(", " ").replace(",", " ").split():
        digits = word.removeprefix("v").removeprefix("go").split("-")[0].split("+")[0].split("~")[0]
        parts = digits.split(".")
        if len(parts) >= 2 and all(part.isdecimal() for part in parts):
            return tuple(int(part) for part in parts)
    return None
