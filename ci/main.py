"""This project's own pipeline: one image is built, once, and the same digest goes to production.

    buildonce run python ci/main.py      (or, with Docker: dagger run python ci/main.py)

    commit       secrets in files and history (ends the others)
                 format and lint, type check ──────────────┐
                 unit tests ───────────────────────────────┤
                 build the image ─▶ SBOMs ─▶ vulnerabilities ─┴▶ release: pushed once and signed
    acceptance   deploy to staging ──┬─▶ smoke test              with all this evidence; from
                                     └─▶ acceptance tests        here on it is a digest
    production   deploy to production, by the same code

Every deployment ends with the environment's smoke path; a failure puts back what ran before. With
`--pull-request` it ends before the release: nothing is pushed, nothing is deployed.
"""

from __future__ import annotations

import sys

import anyio

from buildonce.pipeline import Pipeline
from buildonce.stages import (
    acceptance_tests,
    build_image,
    format_and_lint,
    licences,
    python_environment,
    sbom_image,
    sbom_python,
    sca,
    secrets,
    smoke_test,
    type_check,
    unit_tests,
)


async def main() -> None:
    async with Pipeline.from_config("ci/pipeline.toml", arguments=sys.argv[1:]) as pipeline:
        source = pipeline.source()
        python = pipeline.image("python")
        tools = python_environment(python, source.file("requirements/dev.txt"))
        base = {"PYTHON_IMAGE": pipeline.config.image("python")}

        async with pipeline.stage("commit"):
            async with pipeline.parallel() as checks:
                checks.fail_fast(secrets, source, pipeline.history(), pipeline.tool("gitleaks"))
                checks.start(format_and_lint, source, tools)
                checks.start(type_check, source, tools)
                checks.start(unit_tests, source, tools)
                image = checks.start(pipeline.once(build_image), source, build_args=base)
                sboms = [
                    checks.start(sbom_python, image, python),
                    checks.start(sbom_image, image, python, pipeline.tool("syft")),
                ]
                checks.start(licences, sboms[:1])
                checks.start(sca, sboms, pipeline.tool("osv-scanner"), await pipeline.advisories())
            if pipeline.pull_request:
                return  # a proposal: checked as a commit is, and nothing leaves this machine
            release = await pipeline.release(image)

        async with pipeline.stage("acceptance"):
            staging = await pipeline.deploy(release, to="staging")
            async with pipeline.parallel() as checks:
                checks.start(smoke_test, staging, python)
                checks.start(acceptance_tests, staging, source, tools)

        async with pipeline.stage("production"):
            await pipeline.deploy(release, to="production")


if __name__ == "__main__":
    anyio.run(main)
