"""This project's own pipeline: one image is built, once, and the same digest goes to production.

    buildonce run python ci/main.py      (or, with Docker: dagger run python ci/main.py)

    commit       secrets in files and history (ends the others)
                 format and lint, types, unit tests ──────┐
                 quality, flaws, templates ───────────────┤
                 build the image ─▶ SBOMs ─▶ licences ────┤
                                      └────▶ known flaws ─┴▶ release: pushed once and signed
    acceptance   deploy to staging ──┬─▶ smoke test          with all this evidence; from here
                                     └─▶ acceptance tests    on it is a digest
    production   deploy in waves, each step watched: pilot ─▶ smoke and safe tests ─▶ production;
                 whatever fails anywhere brings both back

Every deployment ends with the environment's smoke path; a failure puts back what ran before. With
`--pull-request` it ends before the release: nothing is pushed, nothing is deployed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import anyio

from buildonce import stages
from buildonce.pipeline import Pipeline
from buildonce.stages import Deployment, python_environment, scanner_environment


async def main() -> None:
    async with Pipeline.from_config("ci/pipeline.toml", arguments=sys.argv[1:]) as pipeline:
        source = pipeline.source()
        python = pipeline.image("python")
        tools = python_environment(python, source.file("requirements/dev.txt"))
        ruff, quality, semgrep = (
            scanner_environment(name, python) for name in ("ruff", "quality", "semgrep")
        )
        gitleaks, osv_scanner, syft = map(pipeline.tool, ("gitleaks", "osv-scanner", "syft"))
        base = {"PYTHON_IMAGE": pipeline.config.image("python")}

        async with pipeline.stage("commit"):
            async with pipeline.parallel() as checks:
                checks.fail_fast(stages.secrets, source, pipeline.history(), gitleaks)
                checks.start(stages.format_and_lint, source, ruff)
                checks.start(stages.type_check, source, tools)
                checks.start(stages.unit_tests, source, tools)
                checks.start(stages.code_quality, source, quality)
                checks.start(stages.sast, source, semgrep)
                checks.start(stages.infrastructure, source, python)
                image = checks.start(pipeline.once(stages.build_image), source, build_args=base)
                packages = checks.start(stages.sbom_python, image, python)
                everything = checks.start(stages.sbom_image, image, python, syft)
                checks.start(stages.licences, [packages])
                database = await pipeline.advisories()
                checks.start(stages.sca, [packages, everything], osv_scanner, database)
            if pipeline.pull_request:
                return  # a proposal: checked as a commit is, and nothing leaves this machine
            release = await pipeline.release(image)

        async with pipeline.stage("acceptance"):
            staging = await pipeline.deploy(release, to="staging")
            async with pipeline.parallel() as checks:
                checks.start(stages.smoke_test, staging, python)
                checks.start(stages.acceptance_tests, staging, source, tools)

        async def tests(wave: Sequence[Deployment]) -> None:
            async with pipeline.parallel() as checks:
                for live in wave:
                    safe = ["-m", "safe"]
                    checks.start(stages.smoke_test, live, python)
                    checks.start(stages.acceptance_tests, live, source, tools, options=safe)

        async with pipeline.stage("production"):
            await pipeline.deploy(release, to="live", after_wave=tests)


if __name__ == "__main__":
    anyio.run(main)
