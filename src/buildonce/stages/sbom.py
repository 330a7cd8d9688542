"""What is in the image: CycloneDX 1.6 of its Python environment, and of all of it.

    python = await sbom_python(image, base)              # reports: python.cdx.json
    whole = await sbom_image(image, base, syft)          # reports: image.cdx.json
    await sca([python, whole], osv_scanner, database)

Two, because each knows what the other does not: the Python one has the dependency graph and the
licences as their authors declare them, that of the image has the operating system's packages. Both
are valid by CycloneDX's own schema, and the same image gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import dagger

from buildonce.errors import BuildonceError
from buildonce.predicates import CYCLONEDX
from buildonce.stages.check import Check, Failure, count, latest
from buildonce.stages.environment import scanner_environment
from buildonce.stages.evidence import Evidence
from buildonce.stages.tasks import tasks
from buildonce.stages.tool import REPORTS, ToolRun, run_tool

_SCRIPT = Path(__file__).parent / "scanners" / "sbom.py"
_IN_CONTAINER = "/opt/sbom.py"
_INVALID = 3  # as the script says it

# The image's files and not an archive of it: the same packages, without packing and unpacking. Only
# what is installed counts, as in an image (a lock file lying about does not), and packages only,
# instead of every single file.
_ROOT = "/in/root"
_SYFT = (
    *(f"dir:{_ROOT}", "--base-path", _ROOT, "--override-default-catalogers", "image"),
    *("--select-catalogers", "-file", "--source-name", "image", "--quiet"),
)
MAX_SBOM = 64 << 20
"""The largest SBOM that is read."""


class NoEnvironment(BuildonceError):
    """The image has no Python environment at that place."""


async def sbom_python(
    image: dagger.Container,
    python: dagger.Container,
    *,
    environment: str = "/app/venv",
    name: str = "environment",
) -> Check:
    """Describe the Python environment that ships in the image.

    Its own Python lists it, so `python` must have the interpreter that it was made with: the base
    of the image.

    Args:
        image: the built image.
        python: a container with the Python of the image, for the scanner.
        environment: the virtual environment, as a path in the image.
        name: what the document calls it.

    Returns:
        Failures when the document is not valid or lists nothing. Reports: python.cdx.json.

    Raises:
        NoEnvironment: the image has none there.
        ToolBroken: cyclonedx-py failed.

    Example:
        check = await sbom_python(image, python, environment="/app/venv")
    """
    try:
        found = await image.directory(environment).entries()
    except dagger.QueryError as error:
        raise NoEnvironment(
            f"the image has no folder {environment}: {error}",
            remedy="set `environment` under [checks.sbom_python] to its virtual environment",
        ) from error
    if "pyvenv.cfg" not in found:
        raise NoEnvironment(
            f"{environment} in the image is no virtual environment: it has no pyvenv.cfg",
            remedy="set `environment` under [checks.sbom_python] to its virtual environment",
        )
    mounted = by_content(image.directory(environment))
    scanner = _scanner(python).with_mounted_directory(environment, mounted)
    interpreter = f"{environment.rstrip('/')}/bin/python"
    file = "python.cdx.json"
    run = await _written(scanner, "environment", interpreter, name, file)
    failures, components = await _judge(run, file)
    return Check(
        name="sbom_python",
        passed=not failures,
        summary=f"{count(components, 'Python package')}, CycloneDX 1.6",
        failures=failures,
        reports={file: run.reports.file(file)},
        ran_at=run.ran_at,
        evidence=(Evidence(CYCLONEDX, run.reports.file(file), "sbom_python"),),
    )


async def sbom_image(
    image: dagger.Container | Sequence[dagger.Container],
    python: dagger.Container,
    syft: dagger.Container,
    *,
    name: str = "image",
) -> Check:
    """Describe all packages of an image, those of its operating system included.

    Args:
        image: the built image; several for several platforms: each gets an SBOM of its own.
        python: a container with Python, for checking and sorting what syft wrote.
        syft: a container with syft.
        name: what the document calls it.

    Returns:
        Failures when a document is not valid or lists nothing. Reports: image.cdx.json, or
        image-linux-arm64.cdx.json and so on for several.

    Raises:
        ToolBroken: syft failed.

    Example:
        check = await sbom_image(image, python, syft)
    """
    images = [image] if isinstance(image, dagger.Container) else list(image)
    checker = _scanner(python)
    runs: dict[str, ToolRun] = {}

    async def describe(one: dagger.Container) -> None:
        suffix = ""
        if len(images) > 1:
            suffix = "-" + str(await one.platform()).replace("/", "-")
        mounted = syft.with_env_variable("SYFT_CHECK_FOR_APP_UPDATE", "false")
        mounted = mounted.with_mounted_directory(_ROOT, by_content(one.rootfs()))
        output = f"cyclonedx-json@1.6={REPORTS}/syft.json"
        scanned = await run_tool(mounted, ["syft", "scan", *_SYFT, "--output", output])
        if scanned.exit_code != 0:
            raise scanned.broken(remedy="look at what syft says of the image above")
        taken = checker.with_mounted_file("/in/syft.json", scanned.reports.file("syft.json"))
        file = f"image{suffix}.cdx.json"
        runs[file] = await _written(taken, "document", "/in/syft.json", f"{name}{suffix}", file)

    async with tasks() as group:
        for one in images:
            group.start_soon(describe, one)
    failures: list[Failure] = []
    components = 0
    for file, run in sorted(runs.items()):
        found, number = await _judge(run, file)
        failures += found
        components += number
    platforms = f" on {len(runs)} platforms" if len(runs) > 1 else ""
    reports = {file: run.reports.file(file) for file, run in sorted(runs.items())}
    return Check(
        name="sbom_image",
        passed=not failures,
        summary=f"{count(components, 'component')}{platforms}, CycloneDX 1.6",
        failures=tuple(failures),
        reports=reports,
        ran_at=latest(*(run.ran_at for run in runs.values())),
        evidence=tuple(
            Evidence(CYCLONEDX, report, f"sbom_{file.removesuffix('.cdx.json')}")
            for file, report in reports.items()
        ),
    )


def by_content(folder: dagger.Directory) -> dagger.Directory:
    """The folder as a copy, which the engine knows by what is in it.

    An image that was built and one that was pulled by the same digest are then the same input, and
    a scan of the one is found again for the other.
    """
    return folder.filter(exclude=["proc/**", "sys/**"])


def _scanner(python: dagger.Container) -> dagger.Container:
    script = _SCRIPT.read_text("utf-8")
    return scanner_environment("cyclonedx", python).with_new_file(_IN_CONTAINER, script)


async def _written(
    scanner: dagger.Container, kind: str, given: str, name: str, file: str
) -> ToolRun:
    command = ["python3", _IN_CONTAINER, kind, given, name, f"{REPORTS}/{file}"]
    run = await run_tool(scanner, command)
    if run.exit_code not in (0, _INVALID):
        raise run.broken(remedy="look at what the scanner says above")
    return run


async def _judge(run: ToolRun, file: str) -> tuple[tuple[Failure, ...], int]:
    """What is wrong with a document, and how many components it lists."""
    if run.exit_code == _INVALID:
        errors = [line for line in run.stdout.splitlines() if line]
        return tuple(Failure("invalid-cyclonedx", error, path=file) for error in errors), 0
    report = run.reports.file(file)
    if await report.size() > MAX_SBOM:
        return (Failure("too-large", f"larger than {MAX_SBOM >> 20} MB", path=file),), 0
    components = json.loads(await report.contents()).get("components") or []
    if not components:
        return (Failure("empty-sbom", "lists no component at all", path=file),), 0
    return (), len(components)
