"""The image store of this machine (docker's or podman's), and the engine's own cache."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import dagger
import pytest
from beartype.roar import BeartypeCallHintReturnViolation

from tests.engine.engines import failure, unique

pytestmark = pytest.mark.anyio


@pytest.fixture
def name() -> Iterator[str]:
    programs = [found for found in map(shutil.which, ("docker", "podman")) if found]
    assert programs, "this test needs docker or podman"
    name = f"localhost/buildonce-{unique()}:1"
    yield name
    for program in programs:
        subprocess.run([program, "rmi", "--force", name], capture_output=True, check=False)


@pytest.mark.embedded_only
async def test_there_and_back(client: dagger.Client, name: str) -> None:
    made = client.container().with_rootfs(client.directory().with_new_file("f.txt", name))
    with suppress(BeartypeCallHintReturnViolation):  # the client wants an answer that is none
        await made.with_label("a.label", "x").export_image(name)
    back = client.host().container_image(name)
    assert await back.file("/f.txt").contents() == name
    assert await back.label("a.label") == "x"


@pytest.mark.embedded_only
async def test_an_image_that_is_not_there(client: dagger.Client) -> None:
    name = f"localhost/{unique()}:1"
    assert name in str(await failure(client.host().container_image(name).sync()))


async def test_the_cache_is_told(client: dagger.Client) -> None:
    cache = client.engine().local_cache()
    assert await client.engine().name()
    entries = cache.entry_set()
    assert await entries.entry_count() > 0
    assert await entries.disk_space_bytes() >= 0
    assert await cache.max_used_space() >= 0


@pytest.mark.embedded_only
async def test_what_is_no_size(client: dagger.Client) -> None:
    cache = client.engine().local_cache()
    assert "'lots' is not a size" in str(await failure(cache.prune(max_used_space="lots")))
    await cache.prune(max_used_space="99%")
