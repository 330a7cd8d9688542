"""What a command depends on: what it can see, and nothing else."""

from __future__ import annotations

from pathlib import Path

import dagger
import pytest

from tests.engine.engines import unique

pytestmark = [pytest.mark.anyio, pytest.mark.embedded_only]

RANDOM = ["cat", "/proc/sys/kernel/random/uuid"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "used").write_text(unique())
    (tmp_path / "unused").write_text("1")
    return tmp_path


async def test_a_mounted_part_is_known_by_its_own_content(
    client: dagger.Client, base: dagger.Container, tree: Path
) -> None:
    async def ran() -> tuple[str, str]:
        source = client.host().directory(str(tree), no_cache=True)
        file = base.with_mounted_file("/f", source.file("part/used")).with_exec(RANDOM)
        part = base.with_mounted_directory("/d", source.directory("part")).with_exec(RANDOM)
        return await file.stdout(), await part.stdout()

    before = await ran()
    (tree / "unused").write_text("2")
    assert await ran() == before
    (tree / "part" / "used").write_text(unique())
    after = await ran()
    assert after[0] != before[0]
    assert after[1] != before[1]


async def test_times_do_not_matter(
    client: dagger.Client, base: dagger.Container, tree: Path
) -> None:
    async def ran() -> str:
        source = client.host().directory(str(tree), no_cache=True)
        return await base.with_directory("/src", source).with_exec(RANDOM).stdout()

    before = await ran()
    (tree / "unused").touch()
    assert await ran() == before
