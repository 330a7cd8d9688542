"""The packages of an SBOM, by the names that advisories use.

    packages_of(json.loads(sbom))       # [SbomPackage(ecosystem="Debian:12", name="zlib", …), …]

Advisories for Linux distributions are about *source* packages and a release: zlib1g of Debian 12
is "zlib" in "Debian:12". The package URL that syft writes has both, as `upstream` and `distro`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from packaging.utils import canonicalize_name

from buildonce.errors import BuildonceError

# Types of package URLs whose ecosystem OSV names, and names without a namespace joined by "/".
_ECOSYSTEMS: Mapping[str, str] = {
    "pypi": "PyPI",
    "npm": "npm",
    "golang": "Go",
    "cargo": "crates.io",
    "gem": "RubyGems",
    "maven": "Maven",
    "nuget": "NuGet",
    "composer": "Packagist",
}
_MAX_COMPONENTS = 200_000
_RELEASE = re.compile(r"(\d+)(?:\.\d+)*")


class SbomUnreadable(BuildonceError):
    """What is given as an SBOM is none, or has packages that cannot be told apart."""


@dataclass(frozen=True, order=True)
class SbomPackage:
    """A package that is installed.

    Args:
        ecosystem: as OSV names it, with the release where it has one: "PyPI", "Debian:12".
        name: as advisories name it; for a distribution, the source package.
        version: of what `name` names.
        installed: the name under which it is installed: "zlib1g".
        purl: its package URL.
    """

    ecosystem: str
    name: str
    version: str
    installed: str
    purl: str

    @property
    def database(self) -> str:
        """The part of the database that has its advisories: "Debian"."""
        return self.ecosystem.partition(":")[0]


@dataclass(frozen=True)
class Contents:
    """What an SBOM lists.

    Args:
        packages: those that an advisory can be about, sorted.
        unknown: types of package URLs that no advisory database here is about, with their number.
    """

    packages: tuple[SbomPackage, ...]
    unknown: Mapping[str, int]


def packages_of(sbom: Mapping[str, Any]) -> Contents:
    """The packages of a CycloneDX document.

    Raises:
        SbomUnreadable: it is no CycloneDX document, lists nothing, or a package URL is malformed.
    """
    if sbom.get("bomFormat") != "CycloneDX" or not isinstance(sbom.get("components"), list):
        raise SbomUnreadable(
            "the SBOM is no CycloneDX document with components",
            remedy="give the JSON that sbom_python or sbom_image wrote",
        )
    packages: set[SbomPackage] = set()
    unknown: dict[str, int] = {}
    for component in walk_components(sbom["components"]):
        purl = component.get("purl")
        if not isinstance(purl, str):
            continue
        package, kind = _package(purl)
        if package is not None:
            packages.add(package)
        else:
            unknown[kind] = unknown.get(kind, 0) + 1
    if not packages and not unknown:
        raise SbomUnreadable(
            "the SBOM lists no package at all",
            remedy="look at what it was made of; an image or environment has some",
        )
    return Contents(tuple(sorted(packages)), dict(sorted(unknown.items())))


def normal_name(ecosystem: str, name: str) -> str:
    """A name as `SbomPackage` writes it: names on PyPI may be spelt in several ways."""
    return str(canonicalize_name(name)) if ecosystem == "PyPI" else name


def walk_components(components: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Components and those inside them, without recursion: depth is the writer's choice."""
    queue: list[Any] = list(components)
    seen = 0
    while queue:
        component = queue.pop()
        seen += 1
        if seen > _MAX_COMPONENTS or not isinstance(component, Mapping):
            raise SbomUnreadable(
                f"the SBOM has more than {_MAX_COMPONENTS} components, or odd ones"
            )
        yield component
        inner = component.get("components")
        if isinstance(inner, list):
            queue.extend(inner)


def _package(purl: str) -> tuple[SbomPackage | None, str]:
    """The package, or None and the type of package URL that no database is about."""
    body, _, _ = purl.partition("#")
    body, _, query = body.partition("?")
    scheme, _, rest = body.partition(":")
    path, at, version = rest.strip("/").rpartition("@")
    if not at:
        path, version = rest.strip("/"), ""
    kind, _, name = path.partition("/")
    kind = kind.lower()
    if scheme != "pkg" or not kind or not name:
        raise SbomUnreadable(f"{purl[:120]!r} is no package URL")
    parts = [unquote(part) for part in name.split("/")]
    version = unquote(version)
    qualifiers = dict(parse_qsl(query, keep_blank_values=True))
    if kind in ("deb", "apk", "rpm"):
        return _of_distribution(kind, parts, version, qualifiers, purl)
    if not (ecosystem := _ECOSYSTEMS.get(kind)):
        return None, kind
    if not version:
        # Without a version nothing can be compared: an advisory would never be found.
        return None, f"{kind} without a version"
    installed = "/".join(parts)
    if kind == "maven":
        installed = ":".join((".".join(parts[:-1]), parts[-1]))
    known = normal_name(ecosystem, installed)
    return SbomPackage(ecosystem, known, version, installed, purl), kind


def _of_distribution(
    kind: str, parts: list[str], version: str, qualifiers: Mapping[str, str], purl: str
) -> tuple[SbomPackage | None, str]:
    installed = parts[-1]
    distribution = parts[0] if len(parts) > 1 else ""
    family, _, release = qualifiers.get("distro", "").partition("-")
    ecosystem = _release(family or distribution, release)
    if ecosystem is None or not version:
        return None, f"{kind}/{distribution}" if distribution else kind
    # "upstream=zlib" or "upstream=util-linux@2.38.1-5": the source package, and its version where
    # that is another one than the binary package's.
    source, _, of_source = qualifiers.get("upstream", "").partition("@")
    return (
        SbomPackage(ecosystem, source or installed, of_source or version, installed, purl),
        kind,
    )


def _release(family: str, release: str) -> str | None:
    match = _RELEASE.match(release)
    if family == "debian" and match:
        return f"Debian:{match.group(1)}"
    if family == "ubuntu" and match:
        year = int(match.group(1))
        long_term = year % 2 == 0 and match.group(0).endswith(".04")
        return f"Ubuntu:{match.group(0)}{':LTS' if long_term else ''}"
    if family == "alpine" and (minor := re.match(r"(\d+\.\d+)", release)):
        return f"Alpine:v{minor.group(1)}"
    return None
