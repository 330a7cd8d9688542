"""Addresses: one text for an image, a folder, a repository, a secret, a service or a socket."""

from __future__ import annotations

import os
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, unique
from tests.engine.test_git import git, serving

pytestmark = pytest.mark.anyio


async def test_on_this_machine(
    client: dagger.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str
) -> None:
    (tmp_path / "f.txt").write_text("f")
    (tmp_path / "g.log").write_text("g")
    folder = client.address(f"file://{tmp_path}")
    assert await folder.value() == f"file://{tmp_path}"
    assert await folder.directory(exclude=["*.log"]).entries() == ["f.txt"]
    assert await client.address(str(tmp_path / "f.txt")).file().contents() == "f"
    image = client.address(f"{registry}/configured:1").container()
    assert await image.label("a.label") == "1"


async def test_secrets(client: dagger.Client, tmp_path: Path) -> None:
    value = unique()
    (tmp_path / "s").write_text(value)
    assert await client.address(f"file://{tmp_path}/s").secret().plaintext() == value
    assert await client.address("HOME").secret().plaintext() == os.environ["HOME"]


async def test_in_git(client: dagger.Client, tmp_path: Path) -> None:
    work = tmp_path / "repo"
    (work / "d").mkdir(parents=True)
    git(work, "init", "-q")
    (work / "d/f.txt").write_text("f")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "one")
    commit = git(work, "rev-parse", "HEAD")
    assert await client.address(str(work)).git_ref().commit() == commit
    assert await client.address(f"{work}#main").git_ref().commit() == commit
    assert await client.address(str(work)).git_repository().branches() == ["main"]
    with serving(tmp_path) as host:
        url = f"{host}/repo/.git"
        assert await client.address(f"{url}#main:d").directory().entries() == ["f.txt"]
        assert await client.address(f"{url}#main:d/f.txt").file().contents() == "f"
        assert await client.address(url).git_repository().branches() == ["main"]
        assert await client.address(f"{url}#main").git_ref().commit() == commit


async def test_what_leads_nowhere(client: dagger.Client) -> None:
    for question in (
        client.address("").value(),
        client.address("http://127.0.0.1:1/x#a:b").git_ref().commit(),
        client.address("http://127.0.0.1:1").service().hostname(),
        client.address("/nowhere/at/all").directory().entries(),
        client.address("tcp://localhost").service().hostname(),
    ):
        await failure(question)


@pytest.mark.embedded_only
async def test_a_service(client: dagger.Client) -> None:
    service = client.address("tcp://localhost:8123").service()
    assert [await port.port() for port in await service.ports()] == [8123]
