"""The pipeline of the planted repository: every scanner at once, on the real engine.

    cd REPOSITORY && buildonce run python …/program.py BESIDE

BESIDE has what is not in the repository: `image/` (the files of the image, in parts), `examples/`
(those of the rules) and `histories/` (some that cannot be read). What checks find is in `out/`, as
in every run; besides, `out/again/` has the SBOMs of a second look, `out/valid.txt` what CycloneDX's
validator says, and `out/histories.json` what is said of those that are broken.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from secrets import token_hex

import anyio
import dagger
from dagger import dag

from buildonce.errors import BuildonceError
from buildonce.pipeline import Pipeline
from buildonce.stages import (
    infrastructure,
    licences,
    sast,
    sbom_image,
    sbom_python,
    sca,
    scanner_environment,
    secrets,
)

_VALIDATE = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for path in sys.argv[1:]:
    text = pathlib.Path(path).read_text("utf-8")
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    print(pathlib.Path(path).name, "valid" if error is None else f"NOT VALID: {error}")
"""


async def image_of(parts: dagger.Directory, python: dagger.Container) -> dagger.Container:
    """A small Debian with an environment of Python: packages are what their metadata says."""
    made = python.with_exec(["python3", "-m", "venv", "--without-pip", "/app/venv"])
    venv = made.directory("/app/venv")
    (site,) = await venv.glob("lib/python3*/site-packages")
    venv = venv.with_directory(site, parts.directory("site-packages"))
    system = dag.container().with_rootfs(parts.directory("system"))
    return system.with_directory("/app/venv", venv)


async def look_again(
    image: dagger.Container, python: dagger.Container, syft: dagger.Container, out: Path
) -> None:
    """Make both SBOMs once more, of an image that is another one by a file; validate them."""
    image = image.with_new_file("/app/venv/again", token_hex())
    validator = scanner_environment("cyclonedx", python)
    files = []
    for check in (await sbom_python(image, python), await sbom_image(image, python, syft)):
        for name, file in check.reports.items():
            await file.export(str(out / "again" / name))
            validator = validator.with_file(f"/sboms/{name}", file)
            files.append(f"/sboms/{name}")
    said = await validator.with_exec(["python3", "-c", _VALIDATE, *files]).stdout()
    (out / "valid.txt").write_text(said, "utf-8")


async def read_histories(histories: Path, gitleaks: dagger.Container, out: Path) -> None:
    """What `secrets` says of each history: whether it passed, or why it cannot tell."""
    said = {}
    for folder in sorted(histories.iterdir()):
        history = dag.host().directory(str(folder / ".git"), exclude=["hooks", "logs", "index"])
        try:
            check = await secrets(dag.directory(), history, gitleaks)
            said[folder.name] = f"passed: {check.summary}" if check.passed else "failed"
        except BuildonceError as error:
            said[folder.name] = f"{type(error).__name__}: {error}"
    (out / "histories.json").write_text(json.dumps(said), "utf-8")


async def main() -> None:
    beside = Path(sys.argv[1])
    async with Pipeline.from_config("ci/pipeline.toml", arguments=["--pull-request"]) as pipeline:
        source = pipeline.source()
        python = pipeline.image("python")
        syft = pipeline.tool("syft")
        image = await image_of(dag.host().directory(str(beside / "image")), python)
        rules = dag.host().directory(str(beside / "examples"))
        examples = source.with_directory("examples", rules)
        try:
            async with pipeline.stage("commit"), pipeline.parallel() as checks:
                checks.start(secrets, source, pipeline.history(), pipeline.tool("gitleaks"))
                checks.start(sast, examples, scanner_environment("semgrep", python))
                checks.start(infrastructure, source, python)
                sboms = [
                    checks.start(sbom_python, image, python),
                    checks.start(sbom_image, image, python, syft),
                ]
                checks.start(licences, sboms[:1])
                database = await pipeline.advisories()
                checks.start(sca, sboms, pipeline.tool("osv-scanner"), database)
        finally:  # the gate is shut, as it should be
            await look_again(image, python, syft, Path("out"))
            await read_histories(beside / "histories", pipeline.tool("gitleaks"), Path("out"))


if __name__ == "__main__":
    anyio.run(main)
