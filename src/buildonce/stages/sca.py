"""Known vulnerabilities in what was built (software composition analysis).

    check = await sca([python_sbom, image_sbom], osv_scanner, database, fail_on="high")

osv-scanner looks, without a network, and so do we: its version 2.2.4 passes over records that list
no versions and have a Git range before the range of versions. What either finds counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import anyio
import dagger
from dagger import dag

from buildonce.advisories import Database, SbomPackage, SbomUnreadable
from buildonce.advisories.database import ARCHIVE, LAYOUT
from buildonce.advisories.matching import SUPPORTED, find, grouped
from buildonce.advisories.packages import packages_of
from buildonce.predicates import VULNERABILITIES
from buildonce.severity import Severity
from buildonce.stages.check import Check
from buildonce.stages.evidence import Evidence, json_file, text_file
from buildonce.stages.sarif import write_sarif
from buildonce.stages.sbom import MAX_SBOM
from buildonce.stages.sca_scanner import NOT_LOADED, AnswerUnreadable, answer, question
from buildonce.stages.sca_verdict import Rules, Unscored, below, judged, predicate, summary
from buildonce.stages.tasks import tasks
from buildonce.stages.tool import REPORTS, ToolRun, run_tool
from buildonce.stages.waivers import Waiver, apply_waivers

_CLEAN, _VULNERABLE = 0, 1  # every other exit code of osv-scanner is a failure of its own
_DATABASE = "/database"
_VERSION = re.compile(r"version:\s*v?(\S+)")


async def sca(
    sboms: Sequence[Check | dagger.File],
    osv_scanner: dagger.Container,
    database: Database,
    *,
    fail_on: Severity = "high",
    unscored: Unscored = "fail",
    unfixed: Literal["fail", "note"] = "fail",
    ecosystems: Sequence[str] = (),
    waivers: Sequence[Waiver] = (),
) -> Check:
    """Look up the packages of SBOMs in the advisory database.

    Args:
        sboms: results of sbom_python and sbom_image, or CycloneDX files.
        osv_scanner: a container with osv-scanner 2.
        database: as `buildonce.advisories.open_database` returns it: checked, and not too old.
        fail_on: the severity from which a vulnerability fails the check.
        unscored: what one without any score counts as; "fail": it fails.
        unfixed: "note" lets one pass that no version mends yet.
        ecosystems: look only at these ("PyPI", "Debian"), and say what is left out; none: at all
            that the SBOMs have.
        waivers: accepted vulnerabilities, by CVE or any other of their names.

    Returns:
        Failures named by CVE. Reports: sca.sarif, vulnerabilities.json (the in-toto predicate).

    Raises:
        NoAdvisories: the database has nothing about an ecosystem of the packages.
        SbomUnreadable: an SBOM is none, or lists no package.
        ToolBroken: osv-scanner failed, or did not answer for all packages.

    Example:
        database = open_database(config.advisories, near=config.path)
        check = await sca([python, whole], osv_scanner, database, fail_on="high")
    """
    packages, left_out = _chosen(await read_sboms(sboms), database, ecosystems)
    rules = Rules(fail_on, unscored, unfixed)
    run, version = await _scan(packages, osv_scanner, database)
    try:
        hits = answer(await run.reports.file("osv.json").contents(), packages)
    except AnswerUnreadable as error:
        raise run.broken(remedy=f"it cannot be relied upon: {error}") from error
    own = [package for package in packages if package.database in SUPPORTED]
    more = await anyio.to_thread.run_sync(partial(find, own, database))
    seen = {(package, advisory.id) for package, advisory in hits}
    passed_over = [hit for hit in more if (hit[0], hit[1].id) not in seen]
    affected = judged(grouped([*hits, *passed_over]), rules)
    failing = [entry.finding for entry in affected if entry.fails]
    after = apply_waivers("sca", failing, waivers)
    document = predicate(affected, after.waived, database, version=version, ran_at=run.ran_at)
    notes = [*left_out, *below(affected, rules), *after.notes]
    if passed_over:
        notes.append(f"osv-scanner passed over {len(passed_over)} of these; found by their ranges")
    told = [*after.findings, *(entry.finding for entry in affected if not entry.fails)]
    sarif = write_sarif("sca", "osv-scanner", version, told, waived=after.waived)
    vulnerabilities = json_file("vulnerabilities.json", document)
    return Check(
        name="sca",
        passed=not after.findings and not after.expired,
        summary=summary(len(packages), len(after.findings), len(after.waived), rules, database),
        failures=(*after.findings, *after.expired),
        reports={
            "sca.sarif": text_file("sca.sarif", sarif),
            "vulnerabilities.json": vulnerabilities,
        },
        ran_at=run.ran_at,
        evidence=(Evidence(VULNERABILITIES, vulnerabilities, "sca"),),
        waived=after.waived,
        notes=tuple(notes),
    )


async def read_sboms(sboms: Sequence[Check | dagger.File]) -> list[Mapping[str, Any]]:
    """The documents, in the order given; a check may have several.

    Raises:
        SbomUnreadable: one is too large or not JSON, or there is none.
    """
    files = [file for sbom in sboms for file in _files(sbom)]
    texts: list[str] = [""] * len(files)

    async def read(index: int) -> None:
        if await files[index].size() > MAX_SBOM:
            raise SbomUnreadable(f"an SBOM is larger than {MAX_SBOM >> 20} MB")
        texts[index] = await files[index].contents()

    async with tasks() as group:
        for index in range(len(files)):
            group.start_soon(read, index)
    documents = []
    for text in texts:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, Mapping):
            raise SbomUnreadable(
                "an SBOM is not JSON", remedy="give the file that sbom_python or sbom_image wrote"
            )
        documents.append(document)
    if not documents:
        raise SbomUnreadable("there is no SBOM to look at", remedy="run sbom_python or sbom_image")
    return documents


def _files(sbom: Check | dagger.File) -> list[dagger.File]:
    if not isinstance(sbom, Check):
        return [sbom]
    return [file for name, file in sorted(sbom.reports.items()) if name.endswith(".cdx.json")]


def _chosen(
    sboms: Sequence[Mapping[str, Any]], database: Database, ecosystems: Sequence[str]
) -> tuple[list[SbomPackage], list[str]]:
    """The packages to look up, and notes on those that are not looked up."""
    contents = [packages_of(sbom) for sbom in sboms]
    packages = {package for one in contents for package in one.packages}
    unknown: dict[str, int] = {}
    for one in contents:
        for kind, number in one.unknown.items():
            unknown[kind] = max(number, unknown.get(kind, 0))
    notes = [
        f"{number} of kind {kind!r}: no advisories are about that kind"
        for kind, number in unknown.items()
    ]
    # A sample is about nearly nothing: to refuse for what it lacks would make it useless.
    wanted = set(ecosystems) or (set(database.ecosystems) if database.sample else None)
    if wanted is not None:
        others = [package for package in packages if package.database not in wanted]
        for name in sorted({package.database for package in others}):
            number = sum(package.database == name for package in others)
            notes.append(f"{number} packages of {name} were not looked up")
        packages -= set(others)
    database.require(package.database for package in packages)
    if not packages:
        raise SbomUnreadable(
            "no package of the SBOMs is looked up: " + ("; ".join(notes) or "they list none"),
            remedy="correct `ecosystems` under [checks.sca]",
        )
    return sorted(packages), notes


async def _scan(
    packages: Sequence[SbomPackage], osv_scanner: dagger.Container, database: Database
) -> tuple[ToolRun, str]:
    """One run of osv-scanner that can be believed, and its version."""
    names = sorted({package.database for package in packages})
    archives = [f"{LAYOUT}/{name}/{ARCHIVE}" for name in names]
    folder = dag.host().directory(str(database.folder), include=archives)
    scanner = (
        osv_scanner.with_env_variable("OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY", _DATABASE)
        .with_mounted_directory(_DATABASE, folder)
        .with_new_file("/in/packages.json", question(packages))
        # Given, so that no osv-scanner.toml anywhere is looked for: it could silence findings.
        .with_new_file("/in/osv-scanner.toml", "")
    )
    command = [
        *("osv-scanner", "scan", "source", "--offline", "--all-packages", "--all-vulns"),
        *("--config", "/in/osv-scanner.toml", "--lockfile", "osv-scanner:/in/packages.json"),
        *("--format", "json", "--output", f"{REPORTS}/osv.json"),
    ]
    runs: list[ToolRun] = []
    said: list[str] = []

    async def scan() -> None:
        runs.append(await run_tool(scanner, command, settled=(_CLEAN, _VULNERABLE)))

    async def ask_version() -> None:
        said.append(await osv_scanner.with_exec(["osv-scanner", "--version"]).stdout())

    async with tasks() as group:
        group.start_soon(scan)
        group.start_soon(ask_version)
    run = runs[0]
    # Of a database that it could not load it writes a clean answer; only these two tell.
    if run.exit_code not in (_CLEAN, _VULNERABLE) or NOT_LOADED in run.stdout + run.stderr:
        raise run.broken(remedy="type `buildonce advisories status`, then `… update`")
    match = _VERSION.search(said[0])
    return run, match.group(1) if match else ""
