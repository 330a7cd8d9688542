from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from buildonce.config import EnvironmentConfig
from buildonce.config.rollout import RolloutConfig
from buildonce.delivery.local import LocalTarget
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Release
from tests.loopback import free_port

from .processes import ProcessContainers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def record(what: Release, ledger: Ledger) -> None:
    """As the pipeline does when it cuts a release."""
    data = {**what.to_json(), "committed_at": what.created.isoformat()}
    await ledger.append("release.created", run=new_run_id(), data=data)


@pytest.fixture
def unused_port() -> int:
    return free_port()


@pytest.fixture
def environment(unused_port: int) -> EnvironmentConfig:
    return EnvironmentConfig(
        name="staging",
        port=unused_port,
        configuration={"GREETING": "hello"},
        health_timeout=timedelta(seconds=5),
        rollout=RolloutConfig(drain=timedelta(seconds=3)),
    )


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[ProcessContainers]:
    processes = ProcessContainers(tmp_path)
    yield processes
    processes.close()


@pytest.fixture
async def target(
    environment: EnvironmentConfig, containers: ProcessContainers, tmp_path: Path
) -> AsyncIterator[LocalTarget]:
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.fail("haproxy is not installed: apt-get install haproxy")
    made = LocalTarget(environment, project="shop", containers=containers, home=tmp_path / "home")
    yield made
    containers.refuse.clear()
    await made.down()
