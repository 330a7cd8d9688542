"""Health checks in an image's configuration, and services that obey them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, fresh, get, sh

pytestmark = pytest.mark.anyio

SHELL = {"shell": True}


async def test_set_and_read(base: dagger.Container) -> None:
    check = base.with_docker_healthcheck(
        ["/bin/true", "x"], interval="1m30s", timeout="500ms", start_period="2s", retries=4
    ).docker_healthcheck()
    assert await check.args() == ["/bin/true", "x"]
    assert not await check.shell()
    assert (await check.interval(), await check.timeout()) == ("1m30s", "500ms")
    assert (await check.start_period(), await check.start_interval()) == ("2s", "0s")
    assert await check.retries() == 4
    shell = base.with_docker_healthcheck(["test -e /x || exit 1"], **SHELL)
    assert await shell.docker_healthcheck().shell()
    assert await shell.docker_healthcheck().args() == ["test -e /x || exit 1"]


async def test_none(base: dagger.Container) -> None:
    gone = base.with_docker_healthcheck(["true"]).without_docker_healthcheck()
    for container in (base, gone):
        with pytest.raises(dagger.InvalidQueryError):
            await container.docker_healthcheck().interval()


async def test_what_is_no_check(base: dagger.Container) -> None:
    for wrong in (
        base.with_docker_healthcheck([]),
        base.with_docker_healthcheck(["a", "b"], **SHELL),
        base.with_docker_healthcheck(["a"], interval="soon"),
    ):
        await failure(wrong.sync())


async def test_in_the_image(base: dagger.Container, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    await base.with_docker_healthcheck(["true"], interval="3s", retries=2).export(str(path))
    with tarfile.open(path) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.load(_blob(tar, index["manifests"][0]["digest"]))
        config = json.load(_blob(tar, manifest["config"]["digest"]))["config"]
    wanted = {"Test": ["CMD", "true"], "Interval": 3_000_000_000, "Retries": 2}
    assert config["Healthcheck"] == wanted


def _blob(tar: tarfile.TarFile, digest: str):  # type: ignore[no-untyped-def]
    return tar.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")


async def test_a_service_is_waited_for(base: dagger.Container, web: dagger.Container) -> None:
    slow = fresh(web).with_default_args(
        sh("httpd -p 8000 -h /srv; sleep 1; echo ready > /srv/ready; exec sleep 600")
    )
    checked = slow.with_docker_healthcheck(
        ["test -e /srv/ready"], **SHELL, interval="200ms", retries=50
    )
    client = fresh(base).with_service_binding("web", checked.as_service())
    assert await client.with_exec(get("web:8000", "/ready")).stdout() == "ready\n"


@pytest.mark.embedded_only
async def test_a_service_that_is_never_well(base: dagger.Container, web: dagger.Container) -> None:
    script = "echo ailing; echo why >&2; exit 3"
    ill = fresh(web).with_docker_healthcheck([script], **SHELL, interval="100ms", retries=2)
    client = fresh(base).with_service_binding("web", ill.as_service())
    error = await failure(client.with_exec(get("web:8000")).stdout())
    assert isinstance(error, dagger.ExecError)
    assert (error.exit_code, error.stdout, error.stderr) == (3, "ailing", "why")
