"""Files to the daemon and from it, and images to a registry."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.engine.buildkit import (
    Build,
    ByteSink,
    Client,
    Credentials,
    DirectoryChanged,
    DirectorySource,
    Export,
    ImageNotFound,
    Session,
    Tree,
    Unauthorized,
    pb,
    walk,
)
from tests.loopback import registry as serving

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]
Fill = Callable[[Path, dict[str, str]], Path]


async def upload(client: Client, build: Build, graph: Any, tree: Tree, **attributes: str) -> str:
    async with client.session(id="test-" + tree.digest[7:]) as session:
        session.directories = {"src": DirectorySource(tree)}.get
        vertex: str = graph.local("src", session.id, **attributes)
        await build.solve(graph.definition(vertex))
        return vertex


async def test_a_directory_as_it_is(
    client: Client, build: Build, graph: Any, tmp_path: Path, fill: Fill
) -> None:
    fill(tmp_path, {"a/b": "hello", "run": "#!"})
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "empty").mkdir(mode=0o700)
    os.utime(tmp_path / "a/b", (10**9, 10**9))
    name = os.fsdecode(b"caf\xe9 \n")
    (tmp_path / name).write_text("odd")
    vertex = await upload(client, build, graph, await walk(tmp_path))
    ref = (await build.solve(graph.definition(vertex))).ref
    assert await build.read_file(ref, "/a/b") == b"hello"
    assert await build.read_file(ref, "/" + name) == b"odd"
    found = {s.name: s for s in await build.read_dir(ref, "/")}
    assert set(found) == {"a", "run", "link", "empty", name}
    assert found["run"].permissions == 0o755
    assert found["link"].target == "a/b"
    assert (found["empty"].permissions, found["empty"].is_dir) == (0o700, True)
    assert (found["run"].uid, found["run"].gid) == (0, 0)
    stat = await build.stat_file(ref, "/a/b")
    assert abs(stat.mtime_ns - 10**18) < 2_000_000


async def test_a_large_file(client: Client, build: Build, graph: Any, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    (tmp_path / "large").write_bytes(data)
    vertex = await upload(client, build, graph, await walk(tmp_path))
    ref = (await build.solve(graph.definition(vertex))).ref
    assert await build.read_file(ref, "/large") == data


async def test_the_same_content_is_sent_once(
    client: Client, session: Session, graph: Any, tmp_path: Path, fill: Fill
) -> None:
    tree = await walk(fill(tmp_path, {"f": os.urandom(8).hex()}))
    async with client.build(session) as build:
        vertex = await upload(client, build, graph, tree)
    # Another build, and nobody there to send it: the name of the session says what it holds.
    async with client.build(session) as build:
        with anyio.fail_after(60):  # it does not wait for one that could send it
            ref = (await build.solve(graph.definition(vertex))).ref
        assert await build.read_file(ref, "/f") == (tmp_path / "f").read_bytes()


async def test_a_change_of_equal_size_and_time_is_sent(
    client: Client, session: Session, graph: Any, tmp_path: Path
) -> None:
    for text in ("one", "two"):
        (tmp_path / "f").write_text(text)
        os.utime(tmp_path / "f", (10**9, 10**9))
        async with client.build(session) as build:
            tree = await walk(tmp_path)
            vertex = await upload(client, build, graph, tree, sharedkeyhint="changes")
            ref = (await build.solve(graph.definition(vertex))).ref
            assert await build.read_file(ref, "/f") == text.encode()


async def test_a_file_that_changes_meanwhile_fails(
    client: Client, build: Build, graph: Any, tmp_path: Path, fill: Fill
) -> None:
    tree = await walk(fill(tmp_path, {"a": "1", "f": "one"}))
    async with client.session(id="test-" + tree.digest[7:]) as session:
        session.directories = {"src": DirectorySource(tree)}.get
        definition = graph.definition(graph.local("src", session.id))
        (tmp_path / "f").write_text("two")
        with pytest.raises(DirectoryChanged) as caught:
            await build.solve(definition)
        assert f"{tmp_path}/f changed while it was being sent" in str(caught.value)
        (tmp_path / "f").unlink()
        with pytest.raises(DirectoryChanged):
            await build.solve(definition)
        # The daemon keeps nothing of it.
        (tmp_path / "f").write_text("one")
        ref = (await build.solve(definition)).ref
        assert await build.read_file(ref, "/f") == b"one"


async def test_what_the_daemon_asks_for(
    client: Client, build: Build, graph: Any, tmp_path: Path, fill: Fill
) -> None:
    tree = await walk(fill(tmp_path, {"a/é.py": "", "a/b.txt": "", "c": ""}))
    vertex = await upload(
        client, build, graph, tree, includepattern='["a/é*"]', excludepatterns='["**/*.txt"]'
    )
    ref = (await build.solve(graph.definition(vertex))).ref
    assert [s.name for s in await build.read_dir(ref, "/")] == ["a"]
    assert [s.name for s in await build.read_dir(ref, "/a")] == ["é.py"]


async def test_ten_thousand_files(
    client: Client, session: Session, graph: Any, tmp_path: Path
) -> None:
    for number in range(100):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        for other in range(100):
            (folder / f"f{other}").write_text(f"{number} {other}\n" * 20)
    tree = await walk(tmp_path)
    async with client.build(session) as build:
        await upload(client, build, graph, tree, sharedkeyhint="many")
    (tmp_path / "d7/f7").write_text("changed")
    tree = await walk(tmp_path)
    for number in range(100):  # of all others the daemon asks for nothing
        (tmp_path / f"d{number}/f8").unlink()
    async with client.build(session) as build:
        vertex = await upload(client, build, graph, tree, sharedkeyhint="many")
        ref = (await build.solve(graph.definition(vertex))).ref
        assert await build.read_file(ref, "/d7/f7") == b"changed"
        assert await build.read_file(ref, "/d99/f99") == b"99 99\n" * 20
        assert await build.read_file(ref, "/d99/f8") == b"99 8\n" * 20


async def test_into_a_folder(
    client: Client, session: Session, graph: Any, tmp_path: Path, fill: Fill
) -> None:
    target = fill(tmp_path / "target", {"mine": "kept", "a/b": "old"})
    vertex = graph.files({f"/a/{n}": str(n).encode() for n in range(2000)} | {"/a/b": b"new"})
    await client.solve(graph.definition(vertex), session, exports=[Export.local(target)])
    assert (target / "mine").read_text() == "kept"
    assert (target / "a/b").read_text() == "new"
    assert (target / "a/1999").read_text() == "1999"
    assert len(list((target / "a").iterdir())) == 2001


async def test_links_into_a_folder(
    client: Client, session: Session, graph: Any, tmp_path: Path
) -> None:
    folder = graph.exec(
        "cd /.buildonce/out/o; busybox ln -s /etc/passwd out; echo x > a; busybox ln a b;"
        "busybox mkfifo p"
    )
    target = tmp_path / "target"
    await client.solve(graph.definition(folder, 1), session, exports=[Export.local(target)])
    assert (target / "o/out").readlink() == Path("/etc/passwd")
    assert (target / "o/a").stat().st_ino == (target / "o/b").stat().st_ino
    assert not (target / "o/p").exists()


async def test_a_target_that_cannot_be_written(
    client: Client, session: Session, graph: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="export could not be written"):
        await client.solve(
            graph.definition(graph.root), session, exports=[Export.local(tmp_path / "file")]
        )


async def test_as_archives(client: Client, session: Session, graph: Any, tmp_path: Path) -> None:
    definition = graph.definition(graph.files({"/f": b"hello"}))
    parts: list[bytes] = []

    async def collect(data: bytes) -> None:
        parts.append(data)

    await client.solve(definition, session, exports=[Export.tar(ByteSink(collect))])
    await client.solve(definition, session, exports=[Export.tar(tmp_path / "f.tar")])
    assert (tmp_path / "f.tar").read_bytes() == b"".join(parts)
    with tarfile.open(tmp_path / "f.tar") as archive:
        member = archive.extractfile("f")
        assert member is not None
        assert member.read() == b"hello"
    answer = await client.solve(definition, session, exports=[Export.oci(tmp_path / "i.tar")])
    with tarfile.open(tmp_path / "i.tar") as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        digest = json.loads(index.read())["manifests"][0]["digest"]
    assert answer["containerimage.digest"] == digest


async def test_an_image_in_a_layout_here(
    client: Client, session: Session, build: Build, graph: Any, tmp_path: Path
) -> None:
    definition = graph.definition(graph.files({"/f": b"from the layout"}))
    answer = await client.solve(definition, session, exports=[Export.oci(tmp_path / "i.tar")])
    with tarfile.open(tmp_path / "i.tar") as archive:
        archive.extractall(tmp_path / "layout")  # noqa: S202 - made by this test
    session.oci_layouts = {"store": tmp_path / "layout"}
    digest = answer["containerimage.digest"]
    resolved = await build.resolve_layout("store", f"local/store@{digest}")
    assert json.loads(resolved.config)["rootfs"]["type"] == "layers"
    op = pb.Op()
    op.source.identifier = f"oci-layout://local/store@{digest}"
    op.source.attrs["oci.store"] = "store"
    result = await build.solve(graph.definition(graph.add(op)))
    assert await build.read_file(result.ref, "/f") == b"from the layout"


# -- registries -----------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path) as host:
        yield host


@pytest.fixture
def closed_registry(tmp_path: Path) -> Iterator[str]:
    """A registry that wants the user `me` with the password `secret`."""
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text("me:$2b$12$MASIXNK5CD6zGu3PzCJ3DuGyE6z3DXfuLV7ZCoYBv08oAPqSW4W3O\n")
    with serving(tmp_path, htpasswd=htpasswd) as host:
        yield host


async def test_push_and_pull(
    client: Client, session: Session, build: Build, graph: Any, registry: str
) -> None:
    definition = graph.definition(graph.files({"/f": b"pushed"}))
    export = Export.image(f"{registry}/a/b:1", push=True, insecure=True)
    answer = await client.solve(definition, session, exports=[export])
    resolved = await build.resolve_image(f"{registry}/a/b:1")
    assert resolved.digest == answer["containerimage.digest"]
    assert json.loads(resolved.config)["os"] == "linux"
    with pytest.raises(ImageNotFound) as caught:
        await build.resolve_image(f"{registry}/a/none:1")
    assert f"{registry}/a/none:1" in str(caught.value)


async def test_a_registry_that_wants_credentials(
    client: Client, session: Session, graph: Any, closed_registry: str
) -> None:
    definition = graph.definition(graph.files({"/f": b"pushed"}))
    export = Export.image(f"{closed_registry}/a/b:1", push=True, insecure=True)
    with pytest.raises(Unauthorized):
        await client.solve(definition, session, exports=[export])
    asked: list[str] = []

    async def credentials(host: str) -> Credentials | None:
        asked.append(host)
        return Credentials("me", "secret")

    session.registry_auth = credentials
    answer = await client.solve(definition, session, exports=[export])
    assert answer["containerimage.digest"].startswith("sha256:")
    assert set(asked) == {closed_registry}
    assert "hidden" not in repr(Credentials("me", "hidden"))
