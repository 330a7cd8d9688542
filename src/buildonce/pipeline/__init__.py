"""Running a pipeline: stages with budgets, checks side by side, a gate, one release, deployments.

async with Pipeline.from_config("ci/pipeline.toml") as pipeline:
    source = pipeline.source()
    tools = python_environment(pipeline.image("python"), source.file("requirements.txt"))
    async with pipeline.stage("commit"):
        async with pipeline.parallel() as checks:
            checks.start(unit_tests, source, tools)
            image = checks.start(build_image, source)
        release = await pipeline.release(image)
    async with pipeline.stage("production"):
        await pipeline.deploy(release, to="production")
"""

from buildonce.pipeline.checks import Checks, Running
from buildonce.pipeline.errors import CheckBroken, CheckDenied, CheckFailed, StageTimedOut
from buildonce.pipeline.pipeline import Pipeline

__all__ = [
    "CheckBroken",
    "CheckDenied",
    "CheckFailed",
    "Checks",
    "Pipeline",
    "Running",
    "StageTimedOut",
]
