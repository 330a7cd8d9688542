"""Files: what is in them, and what can be made of them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, sh, unique

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def lines(client: dagger.Client) -> dagger.File:
    return (
        client.directory().with_new_file("some/lines.txt", "1\n2\n3\n4\n5\n").file("some/lines.txt")
    )


def new(client: dagger.Client, contents: str, permissions: int = 0o644) -> dagger.File:
    return client.directory().with_new_file("f", contents, permissions=permissions).file("f")


async def test_contents_size_and_name(lines: dagger.File) -> None:
    assert await lines.contents() == "1\n2\n3\n4\n5\n"
    assert await lines.size() == 10
    assert await lines.name() == "lines.txt"


@pytest.mark.parametrize(
    ("offset", "limit", "found"),
    [
        (2, None, "3\n4\n5\n"),
        (None, 2, "1\n2\n"),
        (1, 2, "2\n3\n"),
        (99, None, ""),
        (-1, None, "1\n2\n3\n4\n5\n"),
        (None, 0, ""),
        (None, 99, "1\n2\n3\n4\n5\n"),
    ],
)
async def test_some_of_the_lines(
    lines: dagger.File, offset: int | None, limit: int | None, found: str
) -> None:
    assert await lines.contents(offset_lines=offset, limit_lines=limit) == found


async def test_only_a_line_feed_ends_a_line(client: dagger.Client) -> None:
    odd = new(client, "a\x0cb\u2028c\nd\n")
    assert await odd.contents(limit_lines=1) == "a\x0cb\u2028c\n"


async def test_an_empty_file(client: dagger.Client) -> None:
    assert await new(client, "").contents() == ""
    assert await new(client, "").size() == 0


async def test_what_is_not_text(base: dagger.Container) -> None:
    made = base.with_exec(sh("printf '\\377\\376a' > /data"))
    assert await made.file("/data").contents() == "\ufffd\ufffda"
    assert await made.file("/data").size() == 3


async def test_a_large_file(base: dagger.Container) -> None:
    made = base.with_exec(sh("yes 0123456789 | head -c 5000000 > /large"))
    assert len(await made.file("/large").contents()) == 5_000_000


async def test_a_file_that_is_too_large_to_be_told(base: dagger.Container) -> None:
    made = base.with_exec(sh("dd if=/dev/zero of=/large bs=1M seek=200 count=0"))
    assert await made.file("/large").size() == 200 << 20
    assert "134217728" in str(await failure(made.file("/large").contents()))


async def test_the_digest_is_of_content_and_mode(client: dagger.Client) -> None:
    digest = await new(client, "1").digest()
    assert digest.startswith("sha256:")
    elsewhere = client.directory().with_new_file("x/y", "1").file("x/y")
    assert await elsewhere.digest() == digest
    assert await new(client, "2").digest() != digest
    assert await new(client, "1", 0o600).digest() != digest


async def test_the_digest_of_the_content_alone(client: dagger.Client) -> None:
    digest = await new(client, "1").digest(exclude_metadata=True)
    assert await new(client, "1", 0o600).digest(exclude_metadata=True) == digest
    assert await new(client, "2").digest(exclude_metadata=True) != digest


async def test_another_name(client: dagger.Client, lines: dagger.File) -> None:
    renamed = lines.with_name("z")
    assert await renamed.name() == "z"
    assert await renamed.contents() == await lines.contents()
    assert await client.directory().with_files("/", [renamed]).entries() == ["z"]


async def test_timestamps(base: dagger.Container, lines: dagger.File) -> None:
    ran = base.with_file("/f", lines.with_timestamps(86400)).with_exec(["stat", "-c", "%Y", "/f"])
    assert await ran.stdout() == "86400\n"


async def test_chown(base: dagger.Container, lines: dagger.File) -> None:
    ran = base.with_file("/f", lines.chown("5:6")).with_exec(["stat", "-c", "%u:%g", "/f"])
    assert await ran.stdout() == "5:6\n"


async def test_replaced(client: dagger.Client) -> None:
    text = new(client, "aXbXc\nX\n")
    assert await text.with_replaced("X", "-", all=True).contents() == "a-b-c\n-\n"
    assert await text.with_replaced("X", "-", first_from=2).contents() == "aXbXc\n-\n"
    assert await text.with_replaced("b", "-").contents() == "aX-Xc\nX\n"


async def test_replaced_keeps_the_mode(base: dagger.Container, client: dagger.Client) -> None:
    script = new(client, "echo X", 0o755).with_replaced("X", "Y")
    assert await base.with_file("/s", script).with_exec(sh("/s")).stdout() == "Y\n"


async def test_replaced_where_it_is_not_clear_what(client: dagger.Client) -> None:
    error = str(await failure(new(client, "aXbXc").with_replaced("X", "-").contents()))
    assert "search string found multiple times" in error
    assert "line 1 (1-2), line 1 (3-4)" in error


async def test_replaced_where_there_is_nothing(client: dagger.Client) -> None:
    error = str(await failure(new(client, "abc").with_replaced("Q", "-").contents()))
    assert "search string not found" in error


async def test_replacing_all_of_nothing_changes_nothing(client: dagger.Client) -> None:
    assert await new(client, "text").with_replaced("none", "x", all=True).contents() == "text"


async def test_the_digest_of_content_alone(client: dagger.Client) -> None:
    content = hashlib.sha256(b"Hello, World!").digest()
    digest = await new(client, "Hello, World!").digest(exclude_metadata=True)
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_search(lines: dagger.File, client: dagger.Client) -> None:
    [hit] = await new(client, "alpha\nbeta\n").search(pattern="et")
    assert await hit.file_path() == "f"
    assert await hit.line_number() == 2
    assert await hit.absolute_offset() == 6
    assert await hit.matched_lines() == "beta\n"


async def test_a_file_of_the_client(client: dagger.Client) -> None:
    made = client.file("n.txt", "data")
    assert await made.name() == "n.txt"
    assert await made.contents() == "data"
    assert await made.size() == 4
    assert await client.directory().with_file("x", made).entries() == ["x"]


async def test_a_file_of_the_client_has_a_plain_name(client: dagger.Client) -> None:
    assert "a/n.txt" in str(await failure(client.file("a/n.txt", "data").contents()))


# -- written to the client's machine ------------------------------------------------------------


async def test_export(lines: dagger.File, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "out.txt"
    assert await lines.export(str(target)) == str(target)
    assert target.read_text() == "1\n2\n3\n4\n5\n"
    assert target.stat().st_mode & 0o7777 == 0o644


async def test_export_over_a_file(lines: dagger.File, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("a much longer text than the one that replaces it")
    await lines.export(str(target))
    assert target.read_text() == "1\n2\n3\n4\n5\n"


async def test_export_to_a_folder(lines: dagger.File, tmp_path: Path) -> None:
    error = str(await failure(lines.export(str(tmp_path))))
    assert str(tmp_path) in error
    assert "is a directory" in error
    assert "allowParentDirPath" in error
    assert await lines.export(str(tmp_path), allow_parent_dir_path=True) == str(tmp_path)
    assert (tmp_path / "lines.txt").read_text() == "1\n2\n3\n4\n5\n"


async def test_export_keeps_the_mode(base: dagger.Container, tmp_path: Path) -> None:
    made = base.with_exec(sh("echo 1 > /x; chmod 751 /x"))
    await made.file("/x").export(str(tmp_path / "x"))
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o751


async def test_export_of_a_missing_file(base: dagger.Container, tmp_path: Path) -> None:
    target = tmp_path / "never"
    assert "/nope" in str(await failure(base.file("/nope").export(str(target))))
    assert not target.exists()


async def test_export_of_a_directory(client: dagger.Client, tmp_path: Path) -> None:
    tree = client.directory().with_new_file("a.txt", "a").with_new_file("sub/b.txt", "b")
    (tmp_path / "keep").write_text("k")
    assert await tree.export(str(tmp_path)) == str(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "keep", "sub"]
    await tree.export(str(tmp_path), wipe=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "sub"]


async def test_export_of_a_directory_to_a_new_one(client: dagger.Client, tmp_path: Path) -> None:
    target = tmp_path / "x" / "y"
    await client.directory().with_new_file("a.txt", "a").export(str(target))
    assert (target / "a.txt").read_text() == "a"
    assert target.stat().st_mode & 0o7777 == 0o700


async def test_export_of_an_empty_directory(client: dagger.Client, tmp_path: Path) -> None:
    await client.directory().export(str(tmp_path / "x"))
    assert (tmp_path / "x").is_dir()


async def test_export_of_a_directory_onto_a_file(client: dagger.Client, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("k")
    error = str(await failure(client.directory().with_new_file("a", "a").export(str(target))))
    assert str(target) in error
    assert target.read_text() == "k"


async def test_export_keeps_modes_times_and_links(base: dagger.Container, tmp_path: Path) -> None:
    made = base.with_exec(
        sh(
            f"mkdir -m 700 -p /e/d; cd /e; echo {unique()} > x; chmod 751 x; chown 5:6 x; "
            "ln -s x l; touch -d '2001-01-01 00:00:00' x"
        )
    )
    await made.directory("/e").export(str(tmp_path / "out"))
    found = tmp_path / "out"
    assert (found / "x").stat().st_mode & 0o7777 == 0o751
    assert (found / "x").stat().st_uid == tmp_path.stat().st_uid
    assert int((found / "x").stat().st_mtime) == 978307200
    assert str((found / "l").readlink()) == "x"
    assert (found / "d").stat().st_mode & 0o7777 == 0o700


async def test_a_relative_path_is_one_of_the_client(client: dagger.Client) -> None:
    folder = Path.cwd() / unique("test-")
    try:
        answer = await client.directory().with_new_file("a", "a").export(f"{folder.name}/x")
        assert answer == str(folder / "x")
        assert (folder / "x" / "a").read_text() == "a"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
