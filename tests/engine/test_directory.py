"""Directories: made and edited."""

from __future__ import annotations

import dagger
import pytest
from dagger import ExistsType

from tests.engine.engines import failure, sh, unique
from tests.engine.trees import ALL, sample

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def empty(client: dagger.Client) -> dagger.Directory:
    return client.directory()


@pytest.fixture(scope="module")
def tree(client: dagger.Client) -> dagger.Directory:
    return sample(client)


async def seen(base: dagger.Container, directory: dagger.Directory, format: str) -> list[str]:
    """What `stat` tells of everything in a directory, inside a container."""
    script = f"cd /seen && find . | sort | while read p; do stat -c '{format}' \"$p\"; done"
    ran = base.with_directory("/seen", directory).with_exec(sh(script))
    return (await ran.stdout()).splitlines()


# -- new files and folders ----------------------------------------------------------------------


async def test_new_files_and_folders_have_modes_and_root_as_owner(
    base: dagger.Container, empty: dagger.Directory
) -> None:
    made = (
        empty.with_new_file("p/q/x", "1", permissions=0o600)
        .with_new_file("y", "1")
        .with_new_file("s", "1", permissions=0o4755)
        .with_new_directory("n")
        .with_new_directory("m/o", permissions=0o700)
    )
    assert await seen(base, made, "%n %a %u:%g") == [
        ". 755 0:0",
        "./m 700 0:0",
        "./m/o 700 0:0",
        "./n 644 0:0",
        "./p 755 0:0",
        "./p/q 755 0:0",
        "./p/q/x 600 0:0",
        "./s 755 0:0",
        "./y 644 0:0",
    ]


async def test_a_new_folder_over_an_old_one_keeps_what_is_in_it(tree: dagger.Directory) -> None:
    assert await tree.with_new_directory("sub").entries(path="sub") == ["b.txt", "deep/"]


async def test_a_new_file_replaces_an_old_one(tree: dagger.Directory) -> None:
    assert await tree.with_new_file("a.txt", "new").file("a.txt").contents() == "new"


async def test_paths_of_new_files_stay_inside(empty: dagger.Directory) -> None:
    assert await empty.with_new_file("../x", "x").entries() == ["x"]
    assert await empty.with_new_file("/abs/x", "x").glob("**") == ["abs/", "abs/x"]


@pytest.mark.parametrize("path", ["sub", "a.txt/x", ""])
async def test_a_new_file_where_it_cannot_be(tree: dagger.Directory, path: str) -> None:
    error = str(await failure(tree.with_new_file(path, "x").entries()))
    assert path.partition("/")[0] in error
    assert "directory" in error


async def test_what_is_wrong_with_an_edit_is_told_when_it_is_used(tree: dagger.Directory) -> None:
    assert await tree.with_new_file("a.txt/x", "x").id()


async def test_a_name_that_is_too_long(empty: dagger.Directory) -> None:
    error = str(await failure(empty.with_new_file("n" * 300, "x").id()))
    assert "255" in error


async def test_contents_are_kept_to_the_letter(empty: dagger.Directory) -> None:
    text = "q\"'\\ \n\t é ✓ \u2028 \x01"
    assert await empty.with_new_file("f", text).file("f").contents() == text


async def test_a_large_new_file(empty: dagger.Directory) -> None:
    assert await empty.with_new_file("f", "x" * 5_000_000).file("f").size() == 5_000_000


async def test_links(tree: dagger.Directory) -> None:
    linked = tree.with_symlink("a.txt", "link").with_symlink("sub", "x/dir")
    assert await linked.file("link").contents() == "alpha\n"
    assert await linked.file("link").name() == "link"
    assert await linked.glob("x/**") == ["x/dir"]
    assert await tree.with_symlink("sub", "dir").directory("dir").entries() == ["b.txt", "deep/"]


@pytest.mark.parametrize("target", ["nowhere", "/etc/passwd", "../../../../etc/passwd", "link"])
async def test_a_link_never_leads_out(tree: dagger.Directory, target: str) -> None:
    error = str(await failure(tree.with_symlink(target, "link").file("link").contents()))
    assert "link" in error


async def test_a_link_over_something(tree: dagger.Directory) -> None:
    error = str(await failure(tree.with_symlink("x", "a.txt").entries()))
    assert "a.txt" in error
    assert "file exists" in error


# -- one directory in another ---------------------------------------------------------------------


async def test_directories_are_merged(empty: dagger.Directory, tree: dagger.Directory) -> None:
    over = empty.with_new_file("new", "1").with_new_file("b.txt", "over")
    merged = tree.with_directory("sub", over)
    assert await merged.glob("**") == [*ALL, "sub/new"]
    assert await merged.file("sub/b.txt").contents() == "over"
    atop = empty.with_new_file("k", "1").with_directory("/", tree)
    assert await atop.entries() == [".hidden", "a.txt", "empty/", "k", "sub/"]


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (["**/*.txt"], [], ["a.txt", "sub/", "sub/b.txt"]),
        (["sub"], [], ["sub/", "sub/b.txt", "sub/deep/", "sub/deep/c.py"]),
        (["*.txt"], [], ["a.txt"]),
        (["zzz"], [], []),
        ([], ["sub"], [".hidden", "a.txt", "empty/"]),
        ([], ["sub/"], [".hidden", "a.txt", "empty/"]),
        ([], ["**/*.py"], [".hidden", "a.txt", "empty/", "sub/", "sub/b.txt", "sub/deep/"]),
        ([], ["*", "!sub"], ["sub/", "sub/b.txt", "sub/deep/", "sub/deep/c.py"]),
        (["sub/**"], ["**/*.txt"], ["sub/", "sub/deep/", "sub/deep/c.py"]),
    ],
)
async def test_include_and_exclude(
    empty: dagger.Directory,
    tree: dagger.Directory,
    include: list[str],
    exclude: list[str],
    found: list[str],
) -> None:
    into = empty.with_directory("/", tree, include=include, exclude=exclude)
    assert await into.glob("**") == found
    assert await tree.filter(include=include, exclude=exclude).glob("**") == found


async def test_a_bad_pattern_is_told_when_it_is_used(
    empty: dagger.Directory, tree: dagger.Directory
) -> None:
    made = empty.with_directory("/", tree, include=["[a-"])
    assert await made.id()
    assert "syntax error in pattern" in str(await failure(made.glob("**")))


async def test_gitignore(empty: dagger.Directory, tree: dagger.Directory) -> None:
    ignoring = tree.with_new_file(".gitignore", "*.py\nempty/\n")
    found = [".gitignore", ".hidden", "a.txt", "sub/", "sub/b.txt", "sub/deep/"]
    assert await empty.with_directory("/", ignoring, gitignore=True).glob("**") == found
    assert await ignoring.filter(gitignore=True).glob("**") == found


async def test_owners_are_numbers_in_a_directory(
    base: dagger.Container, empty: dagger.Directory, tree: dagger.Directory
) -> None:
    part = tree.directory("sub/deep")
    owned = empty.with_directory("x", part, owner="1000:1001").with_directory("y", part)
    assert await seen(base, owned, "%n %u:%g") == [
        ". 0:0",
        "./x 1000:1001",
        "./x/c.py 1000:1001",
        "./y 0:0",
        "./y/c.py 0:0",
    ]
    error = str(await failure(empty.with_directory("/x", tree, owner="user").entries()))
    assert "user" in error
    assert "/etc/passwd" in error


async def test_permissions_are_for_everything(
    base: dagger.Container, empty: dagger.Directory, tree: dagger.Directory
) -> None:
    made = empty.with_directory("/x", tree.directory("sub"), permissions=0o700)
    found = await seen(base, made.directory("x"), "%n %a")
    assert found[1:] == ["./b.txt 700", "./deep 700", "./deep/c.py 700"]


async def test_hard_links_stay(base: dagger.Container) -> None:
    made = base.with_exec(sh("mkdir /s; echo 1 > /s/a; ln /s/a /s/b; ln -s a /s/c"))
    copied = base.with_directory("/t", made.directory("/s"))
    assert await copied.with_exec(sh("[ /t/a -ef /t/b ] && readlink /t/c")).stdout() == "a\n"


# -- files in it --------------------------------------------------------------------------------


async def test_with_file(empty: dagger.Directory, tree: dagger.Directory) -> None:
    file = tree.file("a.txt")
    assert await empty.with_file("out/renamed.txt", file).glob("**") == ["out/", "out/renamed.txt"]
    assert await empty.with_file("dir/", file).glob("**") == ["dir/", "dir/a.txt"]
    assert await tree.with_file("sub", file).entries(path="sub") == ["a.txt", "b.txt", "deep/"]


async def test_with_file_of_a_missing_file(empty: dagger.Directory, tree: dagger.Directory) -> None:
    error = str(await failure(empty.with_file("x", tree.file("nope")).id()))
    assert "nope: no such file or directory" in error


async def test_with_file_owner_and_permissions(
    base: dagger.Container, empty: dagger.Directory, tree: dagger.Directory
) -> None:
    file = tree.file("a.txt")
    made = empty.with_file("x", file, permissions=0o711, owner="7:8").with_file("y", file)
    assert (await seen(base, made, "%n %a %u:%g"))[1:] == ["./x 711 7:8", "./y 644 0:0"]


async def test_with_file_of_a_link_takes_what_it_leads_to(
    base: dagger.Container, empty: dagger.Directory, tree: dagger.Directory
) -> None:
    linked = tree.with_symlink("a.txt", "link")
    made = empty.with_file("copy", linked.file("link"))
    assert await made.exists("copy", expected_type=ExistsType.REGULAR_TYPE)
    assert await made.file("copy").contents() == "alpha\n"
    inside = base.with_exec(sh("ln -s /etc/passwd /link"))
    assert (await empty.with_file("p", inside.file("/link")).file("p").contents())[:5] == "root:"


async def test_with_files(empty: dagger.Directory, tree: dagger.Directory) -> None:
    made = empty.with_files("f", [tree.file("a.txt"), tree.file("sub/b.txt")])
    assert await made.glob("**") == ["f/", "f/a.txt", "f/b.txt"]


async def test_without_file(tree: dagger.Directory) -> None:
    assert await tree.without_file("a.txt").entries() == [".hidden", "empty/", "sub/"]
    assert await tree.without_file("nope").entries() == await tree.entries()
    assert await tree.without_file("sub/*.txt").glob("sub/**") == ["sub/deep/", "sub/deep/c.py"]
    assert await tree.without_file("sub").entries() == [".hidden", "a.txt", "empty/"]
    assert await tree.without_files(["a.txt", "nope"]).entries() == [".hidden", "empty/", "sub/"]


async def test_without_directory(tree: dagger.Directory) -> None:
    assert await tree.without_directory("sub").entries() == [".hidden", "a.txt", "empty/"]
    assert await tree.without_directory("nope").entries() == await tree.entries()
    assert await tree.without_directory("a.txt").entries() == [".hidden", "empty/", "sub/"]
    assert await tree.without_directory("s*").entries() == [".hidden", "a.txt", "empty/"]


async def test_the_root_cannot_be_removed(tree: dagger.Directory) -> None:
    await failure(tree.without_directory("/").entries())


# -- times, owners, differences ---------------------------------------------------------------


async def test_timestamps_are_of_all_that_is_in_it(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    found = await seen(base, tree.directory("sub").with_timestamps(86400), "%n %Y")
    assert found[1:] == ["./b.txt 86400", "./deep 86400", "./deep/c.py 86400"]


async def test_times_of_files_are_kept(base: dagger.Container) -> None:
    made = base.with_exec(sh("mkdir /s; echo 1 > /s/a; touch -d '2001-01-01 00:00:00' /s/a"))
    found = await seen(base, made.directory("/s"), "%n %Y")
    assert found[1] == "./a 978307200"


async def test_chown(base: dagger.Container, tree: dagger.Directory) -> None:
    found = await seen(base, tree.chown("sub", "5:6"), "%n %u:%g")
    assert [line for line in found if line.endswith("5:6")] == [
        "./sub 5:6",
        "./sub/b.txt 5:6",
        "./sub/deep 5:6",
        "./sub/deep/c.py 5:6",
    ]
    assert "/etc/passwd" in str(await failure(tree.chown("sub", "user").entries()))


async def test_diff(tree: dagger.Directory) -> None:
    changed = (
        tree.with_new_file("a.txt", "changed").with_new_file("n", "1").without_file("sub/b.txt")
    )
    assert await tree.diff(changed).glob("**") == ["a.txt", "n", "sub/"]
    assert await tree.diff(tree).entries() == []


async def test_what_was_copied_is_no_difference(client: dagger.Client) -> None:
    word = unique()  # a copy of equal content, with its times, may be in the cache
    before = client.directory().with_new_file("a", word).with_new_file("d/e", word)
    await before.sync()
    empty = client.directory()
    for after in (
        before,
        before.filter(),
        empty.with_directory("/", before),
        empty.with_directory("s", before).with_new_file("x", "").directory("s"),
        empty.with_new_file("x", "").with_directory("s", before).directory("s"),
        client.container().with_directory("/", before).directory("/"),
        empty.with_file("a", before.file("a")).with_file("d/e", before.file("d/e")),
    ):
        more = after.with_new_file("b", word)
        assert await before.diff(more).glob("**") == ["b"]
        assert await more.diff(before).glob("**") == []
        assert await before.diff(after.with_new_file("a", "A")).glob("**") == ["a"]


async def test_what_is_not_in_an_empty_difference(
    client: dagger.Client, tree: dagger.Directory, base: dagger.Container
) -> None:
    """The daemon must outlive it: all runs share it."""
    none = tree.diff(tree)
    nothing = client.directory().diff(client.directory())
    built = client.directory().with_new_file("Dockerfile", "FROM scratch\n").docker_build()
    for empty in (none, nothing, built.rootfs()):
        with pytest.raises(dagger.QueryError, match="no such file"):
            await client.directory().with_file("x", empty.file("missing")).entries()
        with pytest.raises(dagger.QueryError, match="no such file"):
            await base.with_file("/x", empty.file("missing")).sync()
        with pytest.raises(dagger.QueryError, match=r"symlink|exists|not a directory"):
            await empty.with_new_file("a", "").with_symlink("b", "a").entries()
        assert await client.directory().with_directory("x", empty).entries() == ["x/"]
    with pytest.raises(dagger.QueryError, match="syntax error in pattern"):
        await client.directory().with_directory("x", none, exclude=["["]).entries()
    assert await base.with_exec(["echo", "alive"]).stdout() == "alive\n"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("[ab]", ["?", "a", "ab", "b", "d/", "d/f"]),
        ("?", ["[ab]", "a", "ab", "b", "d/", "d/f"]),
        ("[ab]*", ["?", "[ab]", "d/", "d/f"]),
        ("?*", []),
        ("d/?*", ["?", "[ab]", "a", "ab", "b", "d/"]),
        ("d/?", ["?", "[ab]", "a", "ab", "b", "d/", "d/f"]),
        ("*b", ["?", "[ab]", "a", "d/", "d/f"]),
    ],
)
async def test_only_a_star_makes_a_path_a_pattern(
    client: dagger.Client, pattern: str, left: list[str]
) -> None:
    tree = client.directory()
    for name in ("a", "b", "ab", "[ab]", "?", "d/f"):
        tree = tree.with_new_file(name, name)
    container = client.container().with_directory("/", tree)
    for found in (
        tree.without_file(pattern),
        tree.without_directory(pattern),
        tree.without_files([pattern]),
        container.without_file(pattern).directory("/"),
        container.without_files([pattern]).directory("/"),
    ):
        assert sorted(await found.glob("**")) == left


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("/../a", ["a/", "t/"]),
        ("t/../u", ["t/", "u/"]),
        ("/..", ["t/"]),
        ("..", ["t/"]),
        ("v//w/", ["t/", "v/", "v/w/"]),
    ],
)
async def test_a_new_directory_is_where_its_clean_path_says(
    client: dagger.Client, path: str, made: list[str]
) -> None:
    part = client.directory().with_new_directory("s/t").directory("s")
    assert sorted(await part.with_new_directory(path).glob("**")) == made
    for above in ("../x", "a/../../b"):
        with pytest.raises(dagger.QueryError, match=r"outside parent: \.\./"):
            await part.with_new_directory(above).entries()


async def test_several_files_into_an_absolute_path(client: dagger.Client) -> None:
    part = client.directory().with_new_directory("s/t").directory("s")
    files = [client.directory().with_new_file(name, name).file(name) for name in "ab"]
    assert sorted(await part.with_files("/../n", files).glob("**")) == ["n/", "n/a", "n/b", "t/"]


async def test_files_give_way_to_folders_and_folders_to_files(client: dagger.Client) -> None:
    file = client.directory().with_new_file("x", "file")
    folder = client.directory().with_new_file("x/y", "in a folder")
    assert await file.with_directory("/", folder).glob("**") == ["x/", "x/y"]
    assert await folder.with_directory("/", file).glob("**") == ["x"]
    assert await folder.with_directory("/", file).file("x").contents() == "file"
    assert await file.with_directory("x", folder).glob("**") == ["x/", "x/x/", "x/x/y"]
    deep = client.directory().with_directory("p", file).with_directory("p", folder)
    assert await deep.glob("**") == ["p/", "p/x/", "p/x/y"]
    container = client.container().with_directory("/", file).with_directory("/", folder)
    assert await container.directory("/x").entries() == ["y"]


async def test_a_link_to_a_folder_survives_what_is_laid_over_it(client: dagger.Client) -> None:
    """As /lib in Debian: whatever becomes of the copy, the link must not be replaced."""
    system = client.directory().with_new_file("usr/lib/libc.so", "c").with_symlink("usr/lib", "lib")
    container = client.container().with_directory("/", system)
    over = client.directory().with_new_file("lib/mine.so", "mine")
    try:
        laid = await container.with_directory("/", over).sync()
    except dagger.QueryError as error:
        assert "lib" in str(error)
    else:
        assert await laid.file("/usr/lib/mine.so").contents() == "mine"
        assert await laid.file("/lib/libc.so").contents() == "c"
    written = container.with_new_file("/lib/mine.so", "mine")
    assert sorted(await written.directory("/usr/lib").entries()) == ["libc.so", "mine.so"]


async def test_with_error(empty: dagger.Directory) -> None:
    error = await failure(empty.with_error("my message").entries())
    assert str(error) == "my message"
    assert await empty.with_error("").entries() == []
