"""The conformance suite: the same tests on the embedded engine and on Dagger.

    pytest tests/engine                                   # the embedded engine
    BUILDONCE_TEST_ENGINE=dagger pytest tests/engine      # Dagger: `dagger` is on the PATH, and
                                                          # _EXPERIMENTAL_DAGGER_RUNNER_HOST set
                                                          # where its engine is not in Docker

A test here uses only `dagger-io`. The few that know of one engine are marked `embedded_only`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dagger
import pytest

from buildonce.toolchain import ensure
from tests.engine.engines import ENGINE
from tests.engine.registry import image, layer, serving

APPLETS = (
    "sh ash cat echo ls mkdir rm cp mv ln chmod chown id env printf sleep true false test touch wc "
    "head tail grep sed awk find stat sort tr cut date dd httpd wget nc kill ps pwd whoami seq "
    "md5sum sha256sum tee xargs basename dirname readlink mount umount hostname ip vi expr base64"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)  # all of them need the engine's programs
        if ENGINE != "embedded" and item.get_closest_marker("embedded_only"):
            item.add_marker(pytest.mark.skip(reason="tests what only the embedded engine has"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny root file system: a static busybox and its applets, and `shim connect HOST:PORT`,
    which looks names up as programs do (a static busybox cannot)."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.fail("these tests need a static busybox: apt-get install busybox-static")
    root = tmp_path_factory.mktemp("rootfs")
    for folder in ("bin", "etc", "tmp", "root", "home/user"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(asyncio.run(ensure("shim")).path, root / "bin/shim")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001:user:/home/user:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nstaff:x:1001:\nother:x:1002:\n")
    return root


@pytest.fixture(scope="session", autouse=True)
def engine_environment() -> Iterator[None]:
    """Let `dagger.connection()` start a session of the engine under test."""
    variable = "_EXPERIMENTAL_DAGGER_CLI_BIN"
    before = os.environ.get(variable)
    if ENGINE == "embedded":
        os.environ[variable] = str(Path(sys.executable).parent / "buildonce")
    else:
        found = shutil.which("dagger")
        if found is None:
            pytest.fail("BUILDONCE_TEST_ENGINE=dagger needs dagger on the PATH")
        os.environ[variable] = found
    for name in ("DAGGER_SESSION_PORT", "DAGGER_SESSION_TOKEN"):
        os.environ.pop(name, None)
    yield
    if before is None:
        del os.environ[variable]
    else:
        os.environ[variable] = before


@pytest.fixture(scope="session")
async def client(anyio_backend: str) -> AsyncIterator[dagger.Client]:
    """One session for all tests of the run."""
    async with dagger.Connection(dagger.Config(log_output=sys.stderr)) as connected:
        yield connected


@pytest.fixture(scope="session")
async def base(client: dagger.Client, rootfs: Path) -> dagger.Container:
    """A container with a shell."""
    directory = client.host().directory(str(rootfs))
    return await client.container().with_rootfs(directory).with_env_variable("PATH", "/bin").sync()


@pytest.fixture(scope="session")
def registry(rootfs: Path) -> Iterator[str]:
    """`127.0.0.1:PORT` of a registry with two images: `plain:1` and `configured:1`."""
    content = layer(rootfs)
    images = {
        "plain:1": image(content, {"Env": ["PATH=/bin"]}),
        "configured:1": image(
            content,
            {
                "Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"],
                "User": "user",
                "WorkingDir": "/tmp",
                "Entrypoint": ["/bin/echo", "entry"],
                "Cmd": ["default"],
                "Labels": {"a.label": "1"},
                "ExposedPorts": {"8080/tcp": {}},
            },
        ),
    }
    with serving(images) as address:
        yield address


@pytest.fixture
def web(base: dagger.Container) -> dagger.Container:
    """A container to be a service on port 8000: /index.html, and /id, which every start changes."""
    script = "cat /proc/sys/kernel/random/uuid > /srv/id; exec httpd -f -p 8000 -h /srv"
    return (
        base.with_new_file("/srv/index.html", "served")
        .with_exposed_port(8000)
        .with_default_args(["sh", "-c", script])
    )
