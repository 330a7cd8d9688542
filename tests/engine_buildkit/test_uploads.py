"""Directories of the client's machine: sent when the daemon lacks them, and only what it lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from buildonce.engine import llb
from buildonce.engine.buildkit import Build, Client, filesync
from buildonce.engine.buildkit.tree import Entry, Tree
from buildonce.engine.uploads import Uploads

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths of the files whose content was sent."""
    paths: list[str] = []
    content = filesync._content

    def told(tree: Tree, entry: Entry) -> Iterator[bytes]:
        paths.append(entry.path)
        return content(tree, entry)

    monkeypatch.setattr(filesync, "_content", told)
    yield paths


class Run:
    """One run after another, each with a session of its own."""

    def __init__(self, client: Client, cache: Path) -> None:
        self.client = client
        self.cache = cache

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Uploads, Build]]:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self.client.session())
            uploads = Uploads(self.client, self.cache, "linux/amd64", stack)
            session.directories = uploads.find
            yield uploads, await stack.enter_async_context(self.client.build(session))

    async def upload(self, *roots: Path, read: str = "", **options: Any) -> list[bytes]:
        """Upload them in one session; of each the file `read`."""
        async with self.session() as (uploads, build):
            found = []
            for root in roots:
                output = await uploads.directory(root, **options)
                solved = await build.solve(llb.marshal(output))
                found.append(await build.read_file(solved.ref, f"/{read}"))
            return found


@pytest.fixture
def run(client: Client, tmp_path: Path) -> Run:
    return Run(client, tmp_path / "cache")


def fill(root: Path, word: str) -> Path:
    root.mkdir(parents=True)
    for number in range(50):
        (root / f"f{number}").write_text(f"{word} {number}")
    return root


async def test_only_what_has_changed_since_the_last_run_is_sent(
    run: Run, tmp_path: Path, sent: list[str]
) -> None:
    root = fill(tmp_path / "root", str(tmp_path))
    await run.upload(root, read="f7")
    assert len(sent) == 50
    (root / "f7").write_text("changed")
    (root / "new").write_text("new")
    (root / "f8").unlink()
    assert await run.upload(root, read="f7") == [b"changed"]
    assert sorted(sent[50:]) == ["f7", "new"]


async def test_equal_content_is_not_sent_from_another_folder(
    run: Run, tmp_path: Path, sent: list[str]
) -> None:
    await run.upload(fill(tmp_path / "one", str(tmp_path)), read="f7")
    await run.upload(fill(tmp_path / "two", str(tmp_path)), read="f7")
    assert len(sent) == 50


async def test_going_back_is_going_back(run: Run, tmp_path: Path) -> None:
    root = fill(tmp_path / "root", str(tmp_path))
    before = (root / "f7").read_bytes()
    for content in (b"other", before, b"third", b"other", before):
        (root / "f7").write_bytes(content)
        assert await run.upload(root, read="f7") == [content]


async def test_a_folder_that_changes_in_a_session_is_there_twice(run: Run, tmp_path: Path) -> None:
    """What is read of the first state must not be the second's."""
    root = fill(tmp_path / "root", str(tmp_path))
    async with run.session() as (uploads, build):
        outputs = []
        for word in ("one", "two", "six"):
            (root / "f7").write_text(word)
            outputs.append(await uploads.directory(root))
            await build.solve(llb.marshal(outputs[-1]))
        found = [
            await build.read_file((await build.solve(llb.marshal(output))).ref, "/f7")
            for output in outputs
        ]
    assert found == [b"one", b"two", b"six"]


async def test_parts_of_a_folder_do_not_take_turns(
    run: Run, tmp_path: Path, sent: list[str]
) -> None:
    root = fill(tmp_path / "root", str(tmp_path))
    await run.upload(root, read="f7", include=["f7"])
    await run.upload(root, read="f7", exclude=["f8"])
    del sent[:]
    (root / "f7").write_text("changed")
    await run.upload(root, read="f7", include=["f7"])
    await run.upload(root, read="f7", exclude=["f8"])
    assert sent == ["f7", "f7"]
