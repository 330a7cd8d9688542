"""Listing directories: what is listed, in which order, and when two are the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildonce.engine.buildkit import CannotRead, Tree, walk
from buildonce.engine.buildkit.hashes import YOUNG
from buildonce.engine.buildkit.tree import Entry, order

pytestmark = pytest.mark.anyio
Fill = Callable[[Path, dict[str, str]], Path]


def paths(tree: Tree) -> list[str]:
    return [entry.path for entry in tree.entries]


async def test_order_is_the_daemon_s(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, {"a/b": "", "a-b": "", "a/c/d": "", "a0": "", "é": "", "B": ""})
    assert paths(await walk(tmp_path)) == ["B", "a", "a/b", "a/c", "a/c/d", "a-b", "a0", "é"]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in (".", ".."))


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=12))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_names_come_in_order_after_their_directories(
    tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    for parts in names:
        path = root.joinpath(*parts)
        if not any(p.is_file() for p in path.parents if p != root) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    listed = paths(await walk(root))
    assert listed == sorted(listed, key=order)
    expected = {str(p.relative_to(root)) for p in root.rglob("*")}
    assert set(listed) == expected
    for number, path in enumerate(listed):
        if "/" in path:
            assert path.rpartition("/")[0] in listed[:number]


async def test_same_content_same_digest(tmp_path: Path, fill: Fill) -> None:
    files = {"a/b": "1", "c": "2"}
    one, two = fill(tmp_path / "one", files), fill(tmp_path / "two", files)
    os.utime(two / "c", (1, 1))
    assert (await walk(one)).digest == (await walk(two)).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "c").write_text("3"),
        lambda root: (root / "c").chmod(0o755),
        lambda root: (root / "c").rename(root / "d"),
        lambda root: (root / "new").mkdir(),
        lambda root: (root / "c").unlink() or (root / "c").symlink_to("a"),
        lambda root: (root / "link").unlink() or (root / "link").symlink_to("c"),
    ],
    ids=["content", "mode", "name", "empty directory", "type", "target"],
)
async def test_another_content_is_another_digest(
    tmp_path: Path, fill: Fill, change: Callable[[Path], object]
) -> None:
    root = fill(tmp_path / "r", {"a/b": "1", "c": "2"})
    (root / "link").symlink_to("a")
    before = (await walk(root)).digest
    change(root)
    assert (await walk(root)).digest != before


async def test_remembered_hashes_notice_every_change(tmp_path: Path, fill: Fill) -> None:
    root, cache = fill(tmp_path / "r", {"f": "one", "g": "x"}), tmp_path / "cache"
    old = time.time_ns() - 2 * YOUNG
    digests = [(await walk(root, cache=cache)).digest]
    # A change that keeps size and modification time: only the inode's own time tells.
    for text in ("two", "six"):
        (root / "f").write_text(text)
        os.utime(root / "f", ns=(old, old))
        digests.append((await walk(root, cache=cache)).digest)
    assert len(set(digests)) == 3


async def test_what_is_remembered_is_not_read_again(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = fill(tmp_path / "r", {"f": "one"}), tmp_path / "cache"
    monkeypatch.setattr("buildonce.engine.buildkit.hashes.YOUNG", -(10**12))
    first = await walk(root, cache=cache)

    def forbidden(number: int) -> bytes:
        raise AssertionError("it was read again")

    monkeypatch.setattr("buildonce.engine.buildkit.listing.hash_file", forbidden)
    assert (await walk(root, cache=cache)).digest == first.digest


async def test_a_broken_memory_is_made_anew(tmp_path: Path, fill: Fill) -> None:
    root, cache = fill(tmp_path / "r", {"f": "one"}), tmp_path / "cache"
    good = (await walk(root, cache=cache)).digest
    for path in cache.iterdir():
        path.unlink()
    (cache / "hashes-1.sqlite").write_bytes(b"not a database at all" * 100)
    assert (await walk(root, cache=cache)).digest == good


async def test_links_are_listed_and_never_followed(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path / "secret", {"key": "hidden"})
    root = fill(tmp_path / "r", {"a": "1"})
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(".")
    (root / "dangling").symlink_to("nowhere")
    tree = await walk(root)
    assert paths(tree) == ["a", "dangling", "loop", "out"]
    assert tree.entries[3].target == str(tmp_path / "secret")


async def test_a_root_that_is_a_link_is_resolved(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "r", {"a": "1"})
    (tmp_path / "link").symlink_to(root)
    assert (await walk(tmp_path / "link")).digest == (await walk(root)).digest


async def test_sockets_pipes_and_devices_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "file").write_text("")
        assert paths(await walk(tmp_path)) == ["file"]


async def test_hostile_names(tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b"x" * 255, b"-rf", b"*", b"tab\t", "é".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    tree = await walk(tmp_path)
    assert sorted(os.fsencode(p) for p in paths(tree)) == sorted(names)
    assert tree.digest.startswith("sha256:")


async def test_a_very_deep_directory(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(900):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len((await walk(tmp_path)).entries) == 900


async def test_what_cannot_be_read_is_named(tmp_path: Path, fill: Fill) -> None:
    # As another user, since root may read everything. It becomes that user only once all is
    # imported: a Python below root's home is closed to others.
    fill(tmp_path, {"ok": "1", "closed": "2"})
    (tmp_path / "closed").chmod(0)
    script = (
        "import anyio, anyio._backends._asyncio, os, sys, pathlib\n"
        "from buildonce.engine.buildkit import walk, CannotRead\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: anyio.run(walk, pathlib.Path(sys.argv[1]))\n"
        "except CannotRead as error: print(error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{tmp_path}/closed cannot be read: Permission denied" in result.stdout, result.stderr


async def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRead, match="is not a directory"):
        await walk(tmp_path / "file")
    with pytest.raises(CannotRead, match="No such file"):
        await walk(tmp_path / "nothing")


async def test_include_and_exclude(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, {"src/a.py": "", "src/a.pyc": "", "src/x/b.py": "", "doc/c.md": "", "d.py": ""})
    assert paths(await walk(tmp_path, include=["src/**/*.py"])) == [
        "src",
        "src/a.py",
        "src/x",
        "src/x/b.py",
    ]
    assert paths(await walk(tmp_path, include=["src"], exclude=["**/*.pyc", "**/x"])) == [
        "src",
        "src/a.py",
    ]
    assert paths(await walk(tmp_path, exclude=["*", "!d.py"])) == ["d.py"]


async def test_walking_with_patterns_is_filtering_a_whole_tree(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, {f"{a}/{b}/{c}": "" for a in "ab" for b in "ab" for c in ("a", "b.x", "c.y")})
    whole = await walk(tmp_path)
    for include, exclude in [
        (["a"], ["a/b"]),
        (["**/*.x"], ["a/a"]),
        (["a/*/*.x", "b/a"], ["**/c*"]),
        ([], ["**", "!a/b/*.x"]),
        (["b/**"], ["b/b", "!b/b/a"]),
        (["*/a"], []),
        (["!a", "*"], ["!b"]),
    ]:
        walked = await walk(tmp_path, include=include, exclude=exclude)
        chosen = whole.select(include=include, exclude=exclude)
        assert paths(walked) == paths(chosen), (include, exclude)


async def test_following_links_for_a_frontend(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, {"real/Dockerfile": "", "real/other": "", "x": ""})
    (tmp_path / "Dockerfile").symlink_to("real/Dockerfile")
    tree = await walk(tmp_path)
    assert paths(tree.select(follow=["Dockerfile"])) == ["Dockerfile", "real", "real/Dockerfile"]


def test_order_of_a_directory_and_its_neighbours() -> None:
    assert sorted(["a-b", "a/b", "a", "a.b/c"], key=order) == ["a", "a/b", "a-b", "a.b/c"]
    assert Entry("a", 1 << 31, 0, 0, "", b"").is_dir
