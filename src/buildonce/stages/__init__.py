"""The stages of a pipeline: plain async functions over containers, each of use alone.

    import anyio, dagger
    from dagger import dag
    from buildonce.stages import python_environment, unit_tests

    async def main() -> None:
        async with dagger.connection():
            source = dag.host().directory(".", gitignore=True)
            python = dag.container().from_("python:3.12-slim")
            tools = python_environment(python, source.file("requirements.txt"))
            print((await unit_tests(source, tools)).summary)

    anyio.run(main)

A check returns a `Check`, also when it failed; it raises when it could not be made at all.
"""

from buildonce.severity import Severity
from buildonce.stages.check import Check
from buildonce.stages.code_quality import code_quality
from buildonce.stages.deployment import Deployment, acceptance_tests, smoke_test
from buildonce.stages.environment import python_environment, scanner_environment
from buildonce.stages.evidence import Evidence
from buildonce.stages.finding import Failure, Finding
from buildonce.stages.image import build_image, publish
from buildonce.stages.infrastructure import infrastructure
from buildonce.stages.licences import licences
from buildonce.stages.lint import format_and_lint
from buildonce.stages.sast import sast
from buildonce.stages.sbom import sbom_image, sbom_python
from buildonce.stages.sca import sca
from buildonce.stages.secrets import secrets
from buildonce.stages.tool import ToolBroken, ToolRun, run_tool
from buildonce.stages.type_check import type_check
from buildonce.stages.unit_tests import unit_tests
from buildonce.stages.waivers import Waived, Waiver, apply_waivers

__all__ = [
    "Check",
    "Deployment",
    "Evidence",
    "Failure",
    "Finding",
    "Severity",
    "ToolBroken",
    "ToolRun",
    "Waived",
    "Waiver",
    "acceptance_tests",
    "apply_waivers",
    "build_image",
    "code_quality",
    "format_and_lint",
    "infrastructure",
    "licences",
    "publish",
    "python_environment",
    "run_tool",
    "sast",
    "sbom_image",
    "sbom_python",
    "sca",
    "scanner_environment",
    "secrets",
    "smoke_test",
    "type_check",
    "unit_tests",
]
