"""What osv-scanner is asked, and what it answers.

An SBOM is not given to it directly: from one it takes a distribution's *binary* package names,
which no advisory has, and forgets the release, so that it compares with every release at once. In
its own list format each package has the ecosystem, name and version that advisories use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from buildonce.advisories.packages import SbomPackage, normal_name
from buildonce.advisories.record import Advisory

NOT_LOADED = "could not load db"
_MAX_ANSWER = 256 << 20


class AnswerUnreadable(ValueError):
    """What osv-scanner wrote is not its format, or not the whole answer."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Named(_Part):
    name: str
    version: str = ""
    ecosystem: str = ""


class _Found(_Part):
    package: _Named
    vulnerabilities: tuple[Advisory, ...] = ()


class _Result(_Part):
    packages: tuple[_Found, ...] = ()


class _Answer(_Part):
    results: tuple[_Result, ...] = Field(max_length=1000)


def question(packages: Iterable[SbomPackage]) -> str:
    """The packages as a list of osv-scanner (`--lockfile osv-scanner:FILE`)."""
    coordinates = sorted({_coordinates(package) for package in packages})
    entries = [
        {"package": {"ecosystem": ecosystem, "name": name, "version": version}}
        for ecosystem, name, version in coordinates
    ]
    return json.dumps({"results": [{"packages": entries}]}, indent=1) + "\n"


def answer(text: str, packages: Iterable[SbomPackage]) -> list[tuple[SbomPackage, Advisory]]:
    """Which package has which advisory.

    Raises:
        AnswerUnreadable: it is no answer, or leaves out a package that was asked about.
    """
    if len(text) > _MAX_ANSWER:
        raise AnswerUnreadable("its answer is too large")
    try:
        read = _Answer.model_validate_json(text)
    except ValidationError as error:
        raise AnswerUnreadable(f"its answer is not its format: {error}") from error
    asked: dict[tuple[str, str, str], list[SbomPackage]] = {}
    for package in packages:
        asked.setdefault(_coordinates(package), []).append(package)
    hits = []
    answered = set()
    for found in (found for result in read.results for found in result.packages):
        ecosystem = found.package.ecosystem
        name = normal_name(ecosystem, found.package.name)
        key = (ecosystem, name, found.package.version)
        answered.add(key)
        for package in asked.get(key, ()):
            hits += [(package, advisory) for advisory in found.vulnerabilities]
    if missing := asked.keys() - answered:
        ecosystem, name, version = min(missing)
        raise AnswerUnreadable(
            f"it says nothing about {len(missing)} of {len(asked)} packages, such as {name} "
            f"{version} of {ecosystem}"
        )
    return hits


def _coordinates(package: SbomPackage) -> tuple[str, str, str]:
    return package.ecosystem, package.name, package.version
