"""The client's machine: its directories and files, and no more of them than was asked for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import UUID, failure, on, sh, unique

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with hidden files, a repository's leftovers and links, one of them out of it."""
    root = tmp_path / "folder"
    (root / "sub" / ".git").mkdir(parents=True)
    for name in ("a", ".h", "sub/x.py", "sub/y"):
        (root / name).write_text("1")
    (root / ".gitignore").write_text("*.py\n")
    (root / "link").symlink_to("a")
    (root / "out").symlink_to("/etc/passwd")
    return root


ALL = [".gitignore", ".h", "a", "link", "out", "sub/", "sub/.git/", "sub/x.py", "sub/y"]


async def test_a_directory_has_all_that_is_in_it(client: dagger.Client, folder: Path) -> None:
    found = client.host().directory(str(folder))
    assert await found.glob("**") == ALL
    assert await found.entries() == [".gitignore", ".h", "a", "link", "out", "sub/"]
    assert await found.name() == "/"


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        (["sub/"], ["sub/", "sub/.git/", "sub/x.py", "sub/y"]),
        (["sub"], ["sub/", "sub/.git/", "sub/x.py", "sub/y"]),
        (["/sub"], []),
        (["**/x.py"], ["sub/x.py"]),
        (["x.py"], []),
        (["sub/*"], ["sub/.git/", "sub/x.py", "sub/y"]),
        (["*", "!sub/y"], [".gitignore", ".h", "a", "link", "out", "sub/.git/", "sub/x.py"]),
        (["*", "!a"], [x for x in ALL if x != "a"]),
    ],
)
async def test_exclude(
    client: dagger.Client, folder: Path, exclude: list[str], gone: list[str]
) -> None:
    found = await client.host().directory(str(folder), exclude=exclude).glob("**")
    assert found == [name for name in ALL if name not in gone]


async def test_include(client: dagger.Client, folder: Path) -> None:
    host = client.host()
    found = await host.directory(str(folder), include=["**/*.py"]).glob("**")
    assert found == ["sub/", "sub/x.py"]
    assert await host.directory(str(folder), include=["zzz"]).glob("**") == []


async def test_gitignore(client: dagger.Client, folder: Path) -> None:
    found = await client.host().directory(str(folder), gitignore=True).glob("**")
    assert found == [name for name in ALL if name != "sub/x.py"]


async def test_a_folder_that_is_ignored_is_not_there(client: dagger.Client, folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / "out-of-git").mkdir()
    (folder / ".gitignore").write_text("out-of-git/\n")
    ignored = client.host().directory(f"{folder}/out-of-git", gitignore=True)
    error = str(await failure(ignored.entries()))
    assert "no such file or directory" in error


async def test_a_bad_pattern(client: dagger.Client, folder: Path) -> None:
    error = str(await failure(client.host().directory(str(folder), include=["[a-"]).id()))
    assert "pattern" in error
    assert "[a-" in error


async def test_a_missing_directory(client: dagger.Client, tmp_path: Path) -> None:
    error = str(await failure(client.host().directory(str(tmp_path / "nope")).id()))
    assert "nope" in error
    assert "no such file or directory" in error


async def test_a_file_is_no_directory(client: dagger.Client, folder: Path) -> None:
    error = str(await failure(client.host().directory(str(folder / "a")).id()))
    assert str(folder / "a") in error
    assert "not a directory" in error


@pytest.mark.parametrize("path", ["..", ".", ""])
async def test_relative_paths_are_those_of_the_client(client: dagger.Client, path: str) -> None:
    name = unique("never")
    assert await client.host().directory(path, include=[name]).entries() == []


async def test_what_a_container_sees_of_it(
    base: dagger.Container, client: dagger.Client, folder: Path
) -> None:
    (folder / "a").chmod(0o640)
    os.utime(folder / "a", (1_000_000_000, 1_000_000_000))
    (folder / "sub").chmod(0o2770)
    (folder / "sub/y").chmod(0o4755)
    seen = base.with_directory("/d", client.host().directory(str(folder)))
    ran = seen.with_exec(sh("cd /d; stat -c '%n %a %u:%g' a sub sub/y; stat -c %Y a; readlink out"))
    assert (await ran.stdout()).splitlines() == [
        "a 640 0:0",
        "sub 2770 0:0",
        "sub/y 4755 0:0" if os.geteuid() == 0 else "sub/y 755 0:0",  # see docs/engine.md
        "1000000000",
        "/etc/passwd",
    ]


async def test_a_link_is_never_followed_out(client: dagger.Client, folder: Path) -> None:
    found = client.host().directory(str(folder))
    assert "out" in str(await failure(found.file("out").contents()))
    (folder / "up").symlink_to("../../..")
    up = client.host().directory(str(folder), include=["up"])
    assert await up.entries() == ["up"]
    # The way up ends at the top of what was given.
    assert await up.directory("up").entries() == ["up"]


async def test_an_include_does_not_lead_through_a_link(client: dagger.Client, folder: Path) -> None:
    (folder / "etc").symlink_to("/etc")
    found = client.host().directory(str(folder), include=["etc/passwd", "../folder/a"])
    assert [name for name in await found.glob("**") if "passwd" in name] == []


async def test_special_files_are_left_out(client: dagger.Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "ok").write_text("1")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.path.relpath(tmp_path / "sock"))
        found = await client.host().directory(str(tmp_path)).entries()
        assert found == ["loop", "ok", *on(dagger=["sock"], embedded=[])]
    finally:
        listener.close()


HOSTILE = [
    "new\nline",
    "back\\slash",
    "quo\"te'",
    "-rf",
    "*",
    "[a]",
    "!not",
    "#comment",
    " space ",
    "é✓",
    "$(touch x)",
    "a" * 250,
]


async def test_hostile_names(client: dagger.Client, tmp_path: Path) -> None:
    for name in HOSTILE:
        (tmp_path / name).write_text(name)
    found = client.host().directory(str(tmp_path))
    assert await found.entries() == sorted(HOSTILE, key=str.encode)
    # Dagger takes a file's path for a pattern, and sends that as a header of printable ASCII.
    plain = [n for n in HOSTILE if n.isascii() and n.isprintable() and not set(n) & set("\\*[! ")]
    named = on(dagger=plain, embedded=HOSTILE)
    for name in named:
        assert await client.host().file(str(tmp_path / name)).contents() == name


async def test_names_that_are_no_text(
    base: dagger.Container, client: dagger.Client, tmp_path: Path
) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_text("1")
    (tmp_path / "ok").write_text("1")
    ran = base.with_directory("/d", client.host().directory(str(tmp_path))).with_exec(
        sh("cd /d; for name in *; do printf $name | wc -c; done")
    )
    assert (await ran.stdout()).split() == ["2", "2"]


async def test_a_directory_is_read_once_a_session(client: dagger.Client, tmp_path: Path) -> None:
    async def contents(*, no_cache: bool = False) -> str:
        found = client.host().directory(str(tmp_path), no_cache=no_cache)
        return await found.file("x").contents()

    (tmp_path / "x").write_text("1")
    assert await contents() == "1"
    (tmp_path / "x").write_text("22")
    assert await contents() == "1"
    assert await contents(no_cache=True) == "22"
    (tmp_path / "x").write_text("333")
    assert await contents(no_cache=True) == "333"
    other = client.host().directory(str(tmp_path), include=["x*"])
    assert await other.file("x").contents() == "333"


async def test_the_content_decides_what_is_cached(
    base: dagger.Container, client: dagger.Client, tmp_path: Path
) -> None:
    async def run() -> str:
        folder = client.host().directory(str(tmp_path), no_cache=True)
        return await base.with_directory("/d", folder).with_exec(UUID).stdout()

    (tmp_path / "x").write_text("1")
    (tmp_path / "salt").write_text(unique())
    first = await run()
    os.utime(tmp_path / "x", (5, 5))
    assert await run() == first
    (tmp_path / "x").chmod(0o600)
    assert await run() != first


async def test_the_digest_is_of_the_content(client: dagger.Client, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    host = client.host()
    one = await host.directory(str(tmp_path / "one")).digest()
    assert await host.directory(str(tmp_path / "two")).digest() == one


# -- files --------------------------------------------------------------------------------------


async def test_a_file(client: dagger.Client, folder: Path) -> None:
    found = client.host().file(str(folder / "a"))
    assert await found.contents() == "1"
    assert await found.name() == "a"
    assert await found.size() == 1


async def test_a_missing_file(client: dagger.Client, folder: Path) -> None:
    error = str(await failure(client.host().file(str(folder / "nope")).id()))
    assert "nope" in error
    assert "no such file or directory" in error


async def test_a_directory_is_no_file(client: dagger.Client, folder: Path) -> None:
    error = str(await failure(client.host().file(str(folder / "sub")).id()))
    assert "sub" in error
    assert "is a directory" in error


async def test_a_file_is_read_once_a_session(client: dagger.Client, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    assert await client.host().file(str(path)).contents() == "1"
    path.write_text("22")
    assert await client.host().file(str(path)).contents() == "1"
    assert await client.host().file(str(path), no_cache=True).contents() == "22"


async def test_find_up(client: dagger.Client) -> None:
    assert await client.host().find_up(unique("never")) is None
    name = sorted(path.name for path in Path.cwd().iterdir())[0]
    assert await client.host().find_up(name) == name
