"""Directories: what is in them, found, compared and searched."""

from __future__ import annotations

import dagger
import pytest
from dagger import ExistsType, FileType

from tests.engine.engines import failure, on, sh, unique
from tests.engine.trees import ALL, sample

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def empty(client: dagger.Client) -> dagger.Directory:
    return client.directory()


@pytest.fixture(scope="module")
def tree(client: dagger.Client) -> dagger.Directory:
    return sample(client)


# -- what is in it ----------------------------------------------------------------------------


async def test_entries_are_sorted_names_and_folders_end_with_a_slash(
    tree: dagger.Directory,
) -> None:
    assert await tree.entries() == [".hidden", "a.txt", "empty/", "sub/"]


@pytest.mark.parametrize("path", ["sub", "/sub/", "./sub/.", "empty/../sub"])
async def test_entries_of_a_path(tree: dagger.Directory, path: str) -> None:
    assert await tree.entries(path=path) == ["b.txt", "deep/"]


async def test_entries_of_nothing(empty: dagger.Directory, tree: dagger.Directory) -> None:
    assert await empty.entries() == []
    assert await tree.entries(path="empty") == []


async def test_entries_are_those_behind_a_link(tree: dagger.Directory) -> None:
    linked = tree.with_symlink("sub", "link")
    assert await linked.entries(path="link") == ["b.txt", "deep/"]
    assert await linked.entries() == [".hidden", "a.txt", "empty/", "link", "sub/"]


async def test_entries_of_a_file(tree: dagger.Directory) -> None:
    error = str(await failure(tree.entries(path="a.txt")))
    assert "a.txt" in error
    assert "not a directory" in error


async def test_entries_of_a_missing_path(tree: dagger.Directory) -> None:
    error = str(await failure(tree.entries(path="nope")))
    assert "nope" in error
    assert "no such file or directory" in error


async def test_five_thousand_entries(base: dagger.Container) -> None:
    made = base.with_exec(sh("mkdir /w; cd /w; for i in $(seq 5000); do : > f$i; done"))
    assert len(await made.directory("/w").entries()) == 5000


# -- a part of it -----------------------------------------------------------------------------


async def test_a_missing_directory_is_told_when_it_is_used(tree: dagger.Directory) -> None:
    missing = tree.directory("nope")
    assert await missing.id()
    for question in (missing.sync(), missing.entries(), missing.glob("**")):
        error = str(await failure(question))
        assert "nope" in error
        assert "no such file or directory" in error


async def test_a_missing_directory_is_not_made_by_an_edit(tree: dagger.Directory) -> None:
    missing = tree.directory("nope")
    for made in (
        missing.with_new_file("x", "1"),
        missing.with_directory("x", tree),
        missing.with_symlink("x", "y"),
        missing.without_file("x"),
        missing.filter(include=["*"]),
        missing.with_timestamps(1),
        tree.diff(missing),
    ):
        assert "nope: no such file or directory" in str(await failure(made.entries()))


async def test_an_edit_may_be_above_a_part(tree: dagger.Directory) -> None:
    edited = tree.directory("sub").with_new_file("../up", "x")
    assert await edited.entries() == ["b.txt", "deep/"]
    assert await edited.directory("..").file("up").contents() == "x"


async def test_a_file_is_not_a_directory(tree: dagger.Directory) -> None:
    error = str(await failure(tree.directory("a.txt").entries()))
    assert error.startswith("path a.txt is a file, not a directory")


async def test_a_missing_file_is_told_at_once(tree: dagger.Directory) -> None:
    missing = tree.file("missing.txt")
    for question in (missing.id(), missing.size(), missing.name(), missing.sync()):
        assert "missing.txt: no such file or directory" in str(await failure(question))


async def test_a_directory_is_not_a_file(tree: dagger.Directory) -> None:
    assert "path sub is a directory, not a file" in str(await failure(tree.file("sub").sync()))


async def test_a_file_without_a_name(tree: dagger.Directory) -> None:
    await failure(tree.file("").contents())


async def test_no_path_leads_above_the_root(tree: dagger.Directory) -> None:
    assert await tree.directory("../..").entries() == [".hidden", "a.txt", "empty/", "sub/"]
    assert await tree.file("../../a.txt").contents() == "alpha\n"


async def test_a_part_still_knows_what_is_above_it(tree: dagger.Directory) -> None:
    assert await tree.directory("sub").directory("..").entries() == await tree.entries()
    assert await tree.directory("sub").file("../a.txt").contents() == "alpha\n"


async def test_names(tree: dagger.Directory) -> None:
    assert await tree.name() == "/"
    assert await tree.directory("sub").name() == "sub/"
    assert await tree.directory("sub/deep").name() == "deep/"


async def test_exists(tree: dagger.Directory) -> None:
    linked = tree.with_symlink("a.txt", "link").with_symlink("nowhere", "dangling")
    assert await linked.exists("a.txt")
    assert not await linked.exists("nope")
    assert await linked.exists("sub", expected_type=ExistsType.DIRECTORY_TYPE)
    assert not await linked.exists("sub", expected_type=ExistsType.REGULAR_TYPE)
    assert await linked.exists("link", expected_type=ExistsType.REGULAR_TYPE)
    assert await linked.exists(
        "link", expected_type=ExistsType.SYMLINK_TYPE, do_not_follow_symlinks=True
    )
    assert not await linked.exists("dangling")
    assert await linked.exists("dangling", do_not_follow_symlinks=True)


async def test_stat(tree: dagger.Directory) -> None:
    found = tree.stat("sub/b.txt")
    assert await found.name() == "b.txt"
    assert await found.size() == 5
    assert await found.permissions() == 0o644
    assert await found.file_type() is FileType.REGULAR
    folder = tree.stat("sub")
    assert await folder.permissions() == 0o755
    assert await folder.file_type() is FileType.DIRECTORY


async def test_stat_of_a_link(tree: dagger.Directory) -> None:
    linked = tree.with_symlink("a.txt", "link")
    assert await linked.stat("link").file_type() is FileType.REGULAR
    itself = linked.stat("link", do_not_follow_symlinks=True)
    assert await itself.file_type() is FileType.SYMLINK


async def test_stat_of_a_missing_path(tree: dagger.Directory) -> None:
    assert "nope: no such file or directory" in str(await failure(tree.stat("nope").name()))


async def test_find_up(tree: dagger.Directory) -> None:
    assert await tree.find_up("a.txt", "sub/deep") == "a.txt"
    assert await tree.find_up("b.txt", "sub/deep") == "sub/b.txt"
    assert await tree.find_up("nope", "sub/deep") is None


# -- globs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", ALL),
        ("**/*", ALL),
        ("**/", ALL),
        ("*", [".hidden", "a.txt", "empty/", "sub/"]),
        ("*/", [".hidden", "a.txt", "empty/", "sub/"]),
        ("**/*.txt", ["a.txt", "sub/b.txt"]),
        ("*.txt", ["a.txt"]),
        ("./*.txt", ["a.txt"]),
        ("sub/**", ["sub/b.txt", "sub/deep/", "sub/deep/c.py"]),
        ("sub/*", ["sub/b.txt", "sub/deep/"]),
        ("sub/**/*.py", ["sub/deep/c.py"]),
        ("sub", ["sub/"]),
        ("sub/", ["sub/"]),
        ("**/deep", ["sub/deep/"]),
        (".*", [".hidden"]),
        ("?.txt", ["a.txt"]),
        ("[ab].txt", ["a.txt"]),
        ("{a.txt,sub/b.txt}", []),
        ("/sub/*", []),
        ("zzz*", []),
    ],
)
async def test_glob(tree: dagger.Directory, pattern: str, found: list[str]) -> None:
    assert await tree.glob(pattern) == found


async def test_glob_in_a_part_is_relative_to_it(tree: dagger.Directory) -> None:
    assert await tree.directory("sub").glob("**") == ["b.txt", "deep/", "deep/c.py"]


async def test_glob_does_not_follow_links(tree: dagger.Directory) -> None:
    found = await tree.with_symlink("sub", "link").glob("**")
    assert found == [*ALL[:3], "link", *ALL[3:]]


@pytest.mark.parametrize(("pattern", "cause"), [("", "empty pattern"), ("[a-", "syntax error")])
async def test_a_bad_glob(tree: dagger.Directory, pattern: str, cause: str) -> None:
    assert cause in str(await failure(tree.glob(pattern)))


# -- digests ----------------------------------------------------------------------------------


async def test_the_digest_is_of_the_content(
    empty: dagger.Directory, tree: dagger.Directory
) -> None:
    one = empty.with_new_file("x", "1").with_new_file("y", "2")
    other = empty.with_new_file("y", "2").with_new_file("x", "1")
    digest = await one.digest()
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64
    assert await other.digest() == digest
    assert await one.with_timestamps(99).digest() == digest
    assert await one.with_new_file("x", "other").digest() != digest
    alone = empty.with_new_file("c.py", "print(1)\n")
    assert await tree.directory("sub/deep").digest() == await alone.digest()
    assert (await empty.digest()).startswith("sha256:")


async def test_the_digest_knows_modes_and_names(empty: dagger.Directory) -> None:
    digests = {
        await empty.with_new_file("x", "1").digest(),
        await empty.with_new_file("y", "1").digest(),
        await empty.with_new_file("x", "1", permissions=0o600).digest(),
        await empty.with_new_file("x", "1").chown("x", "7:8").digest(),
        await empty.with_symlink("1", "x").digest(),
    }
    assert len(digests) == 5


# -- search -------------------------------------------------------------------------------------


async def test_search(tree: dagger.Directory) -> None:
    found = []
    for hit in await tree.search(pattern="alpha|beta|print"):
        [part] = await hit.submatches()
        found.append(
            (
                await hit.file_path(),
                await hit.line_number(),
                await hit.absolute_offset(),
                await hit.matched_lines(),
                (await part.text(), await part.start(), await part.end()),
            )
        )
    assert sorted(found) == [
        ("a.txt", 1, 0, "alpha\n", ("alpha", 0, 5)),
        ("sub/b.txt", 1, 0, "beta\n", ("beta", 0, 4)),
        ("sub/deep/c.py", 1, 0, "print(1)\n", ("print", 0, 5)),
    ]


async def paths(question: list[dagger.SearchResult]) -> list[str]:
    return sorted([await hit.file_path() for hit in question])


async def test_search_options(tree: dagger.Directory) -> None:
    assert await tree.search(pattern="zzzz") == []
    assert await paths(await tree.search(pattern="ALPHA", insensitive=True)) == ["a.txt"]
    assert len(await tree.search(pattern="a", limit=1)) == 1
    assert await paths(await tree.search(pattern="a", globs=["*.py"])) == []
    assert await paths(await tree.search(pattern="1", globs=["*.py"])) == ["sub/deep/c.py"]
    assert await paths(await tree.search(pattern="a", paths=["sub"])) == ["sub/b.txt"]
    assert await paths(await tree.search(pattern="h")) == [".hidden", "a.txt"]
    assert await paths(await tree.search(pattern="h", skip_hidden=True)) == ["a.txt"]
    assert await paths(await tree.search(pattern="(1)", literal=True)) == ["sub/deep/c.py"]


async def test_search_for_files_only(tree: dagger.Directory) -> None:
    found = await tree.search(pattern="a", files_only=True)
    assert await paths(found) == ["a.txt", "sub/b.txt"]
    assert await found[0].line_number() == 0
    assert await found[0].matched_lines() == ""


async def test_search_over_lines(empty: dagger.Directory) -> None:
    made = empty.with_new_file("f", "one\ntwo\nthree\n")
    [hit] = await made.search(pattern="one\\ntwo", multiline=True)
    assert await hit.line_number() == 1
    assert await hit.matched_lines() == "one\ntwo\n"


async def test_search_without_what_is_ignored(empty: dagger.Directory) -> None:
    made = (
        empty.with_new_file("kept.txt", "word")
        .with_new_file("gone.log", "word")
        .with_new_file("sub/own.tmp", "word")
        .with_new_file("sub/build/out", "word")
        .with_new_file(".ignore", "*.log\n")
        .with_new_file(".gitignore", "kept.txt\n")
        .with_new_file("sub/.rgignore", "/own.tmp\nbuild/\n")
    )
    every = ["gone.log", "kept.txt", "sub/build/out", "sub/own.tmp"]
    assert sorted(await paths(await made.search(pattern="word"))) == every
    assert await paths(await made.search(pattern="word", skip_ignored=True)) == ["kept.txt"]
    # Git's own file counts in a repository.
    repository = made.with_new_file(".git/HEAD", "ref: refs/heads/main\n")
    assert await paths(await repository.search(pattern="word", skip_ignored=True)) == []


async def test_search_follows_the_link_it_is_given_inside_the_directory(
    empty: dagger.Directory,
) -> None:
    made = empty.with_new_file("etc/passwd", "not this").with_new_file("sub/etc/passwd", "word")
    part = made.with_symlink("/etc/passwd", "sub/link").directory("sub")
    [hit] = await part.search(pattern=".*", paths=["link"])
    assert await hit.matched_lines() == "word"


async def test_nothing_has_no_path(tree: dagger.Directory) -> None:
    assert "no such file or directory" in str(await failure(tree.stat("").name()))


async def test_a_bad_search(tree: dagger.Directory) -> None:
    error = str(await failure(tree.search(pattern="(")))
    assert "(" in error
    assert on(dagger="unclosed group", embedded="missing closing )") in error


# -- identity -----------------------------------------------------------------------------------


async def test_sync_answers_the_same_thing(client: dagger.Client, tree: dagger.Directory) -> None:
    assert await (await tree.sync()).entries() == await tree.entries()
    again = client.load_directory_from_id(dagger.DirectoryID(await tree.id()))
    assert await again.entries() == await tree.entries()


async def test_a_lazy_failure_is_told_by_whoever_asks(base: dagger.Container) -> None:
    made = base.with_exec(sh(f"exit 3 # {unique()}")).directory("/")
    assert await made.id()
    with pytest.raises(dagger.ExecError) as caught:
        await made.entries()
    assert caught.value.exit_code == 3
