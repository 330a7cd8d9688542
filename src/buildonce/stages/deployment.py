"""Tests against what is deployed; containers reach it as a Dagger service.

service = dag.host().service(ports=[PortForward(backend=8103)])
production = Deployment(service, 8103, "sha256:…", "production")
check = await smoke_test(production, python)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import dagger

from buildonce.stages.check import Check, Failure
from buildonce.stages.environment import in_project
from buildonce.stages.pytest_run import JUNIT, run_pytest
from buildonce.stages.tool import run_tool

_ALIAS = "app"

_CONFIGURATION = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", "conftest.py")

# urllib raises for 4xx and 5xx and for a refused connection alike; each is told in one line.
_PROBE = """
import json, sys, urllib.error, urllib.request
found = []
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        found.append([url, f"answered {error.code} {error.reason}"])
    except OSError as error:
        found.append([url, f"did not answer: {getattr(error, 'reason', error)}"])
print(json.dumps(found))
sys.exit(1 if found else 0)
"""


@dataclass(frozen=True)
class Deployment:
    """A running deployment, as containers reach it.

    Args:
        service: the way to it; None where containers reach its `url` by themselves.
        port: the port of the service.
        identity: what runs there (a digest, a rollout): a test that passed against it is run again
            when this changes.
        environment: its name.
        url: where it answers, without a service.
    """

    service: dagger.Service | None
    port: int | None
    identity: str
    environment: str = ""
    url: str = ""

    @property
    def base_url(self) -> str:
        """The address inside a container that `bind` returned."""
        return self.url if self.service is None else f"http://{_ALIAS}:{self.port}"

    def bind(self, container: dagger.Container) -> dagger.Container:
        """The container with a way to the deployment, and its address in BASE_URL."""
        if self.service is not None:
            container = container.with_service_binding(_ALIAS, self.service)
        return container.with_env_variable("BASE_URL", self.base_url).with_env_variable(
            "DEPLOYMENT", self.identity
        )


async def smoke_test(
    deployment: Deployment, python: dagger.Container, *, paths: Sequence[str] = ("/healthz",)
) -> Check:
    """Ask each path once; anything but a success is a failure.

    Args:
        deployment: what to ask.
        python: a container with Python.
        paths: what to ask for.

    Returns:
        Failures named by path. No reports.

    Raises:
        ToolBroken: Python is not in the container.

    Example:
        check = await smoke_test(staging, python, paths=["/healthz", "/"])
    """
    urls = [f"{deployment.base_url}{path}" for path in paths]
    run = await run_tool(deployment.bind(python), ["python3", "-c", _PROBE, *urls])
    try:
        found = json.loads(run.stdout)
    except ValueError:
        raise run.broken(remedy="give smoke_test a container that has python3") from None
    return Check(
        name="smoke_test",
        passed=not found,
        summary=f"{len(urls) - len(found)} of {len(urls)} paths answer",
        failures=tuple(
            Failure(url.removeprefix(deployment.base_url), f"{deployment.identity[:19]} {cause}")
            for url, cause in found
        ),
        ran_at=run.ran_at,
    )


async def acceptance_tests(
    deployment: Deployment,
    source: dagger.Directory,
    python: dagger.Container,
    *,
    paths: Sequence[str] = ("tests/acceptance",),
    options: Sequence[str] = (),
) -> Check:
    """Run the tests that look at the deployment as its users do; they find it in BASE_URL.

    Args:
        deployment: what they test.
        source: the project; only `paths` and pytest's configuration are looked at.
        python: a container with pytest and what the tests import.
        paths: the tests, relative to the source.
        options: more of pytest's options.

    Returns:
        Failures named as pytest names the tests. Reports: junit.xml.

    Raises:
        ToolBroken: pytest could not run, or found no tests.

    Example:
        check = await acceptance_tests(staging, source, tools, paths=["tests/acceptance"])
    """
    tests = source.filter(include=[*paths, *_CONFIGURATION])
    pytest = await run_pytest(deployment.bind(in_project(python, tests)), paths, options)
    return Check(
        name="acceptance_tests",
        passed=not pytest.tests.failures,
        summary=pytest.summary,
        failures=pytest.tests.failures,
        reports={JUNIT: pytest.junit},
        ran_at=pytest.run.ran_at,
    )
