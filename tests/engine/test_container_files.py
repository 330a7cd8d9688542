"""A container's files: put in, taken out, and asked about, in its root and below its mounts."""

from __future__ import annotations

import os

import dagger
import pytest
from dagger import ExistsType

from tests.engine.engines import failure, sh, unique
from tests.engine.trees import sample

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tree(client: dagger.Client) -> dagger.Directory:
    return sample(client)


def new(client: dagger.Client, path: str, contents: str = "1") -> dagger.Directory:
    return client.directory().with_new_file(path, contents)


async def told(container: dagger.Container, format: str, *paths: str) -> list[str]:
    """What `stat` tells of paths, inside the container."""
    return (await container.with_exec(["stat", "-c", format, *paths]).stdout()).splitlines()


# -- taken out ----------------------------------------------------------------------------------


async def test_what_is_missing_is_told_when_it_is_used(base: dagger.Container) -> None:
    assert await base.directory("/nope").id()
    assert await base.file("/nope").id()
    for question in (
        base.directory("/nope").entries(),
        base.directory("/nope").sync(),
        base.file("/nope").contents(),
        base.file("/nope").name(),
        base.file("/nope").size(),
        base.file("/nope").sync(),
    ):
        assert "stat /nope: no such file or directory" in str(await failure(question))


async def test_the_wrong_kind_is_told(base: dagger.Container) -> None:
    error = str(await failure(base.file("/etc").contents()))
    assert "path /etc is a directory, not a file" in error
    error = str(await failure(base.directory("/etc/passwd").entries()))
    assert "path /etc/passwd is a file, not a directory" in error


async def test_what_is_missing_cannot_be_put_elsewhere(base: dagger.Container) -> None:
    for made in (
        base.with_directory("/x", base.directory("/nope")),
        base.with_file("/x", base.file("/nope")),
    ):
        assert "stat /nope: no such file or directory" in str(await failure(made.sync()))


async def test_the_wrong_kind_cannot_be_put_elsewhere(base: dagger.Container) -> None:
    for made, fact in (
        (base.with_directory("/x", base.directory("/etc/passwd")), "is a file, not a directory"),
        (base.with_file("/x", base.file("/etc")), "is a directory, not a file"),
    ):
        assert fact in str(await failure(made.sync()))


async def test_paths_are_seen_from_the_working_directory(base: dagger.Container) -> None:
    inside = base.with_workdir("/etc")
    assert await inside.file("group").contents() == await base.file("/etc/group").contents()
    assert await inside.directory("..").entries() == await base.directory("/").entries()
    assert await inside.exists("passwd")


async def test_paths_are_expanded_when_asked_for(base: dagger.Container) -> None:
    named = base.with_env_variable("X", "etc")
    assert await named.file("/$X/group", expand=True).name() == "group"
    assert "passwd" in await named.directory("/${X}", expand=True).entries()
    assert not await named.exists("/$X/group")
    assert await named.exists("/$X/group", expand=True)


async def test_links_are_followed(base: dagger.Container) -> None:
    linked = base.with_symlink("/etc", "/folder").with_symlink("/etc/passwd", "/link")
    assert await linked.directory("/folder").entries() == await base.directory("/etc").entries()
    assert await linked.file("/folder/passwd").name() == "passwd"
    assert await linked.file("/link").name() == "link"
    assert (await linked.file("/link").contents())[:5] == "root:"
    assert await linked.directory("/").glob("folder/**") == []


async def test_exists_and_stat(base: dagger.Container) -> None:
    assert await base.exists("/etc/passwd")
    assert not await base.exists("/nope")
    assert await base.exists("/etc", expected_type=ExistsType.DIRECTORY_TYPE)
    assert not await base.exists("/etc", expected_type=ExistsType.REGULAR_TYPE)
    assert await base.stat("/etc/passwd").size() == await base.file("/etc/passwd").size()
    assert "/nope" in str(await failure(base.stat("/nope").size()))


async def test_odd_files(base: dagger.Container) -> None:
    device = "mknod /s/n c 1 3" if os.geteuid() == 0 else "mkfifo /s/n"  # only root makes devices
    made = base.with_exec(sh(f"mkdir -p /s/e; chmod 1777 /s/e; mkfifo /s/p; {device}"))
    assert await made.directory("/s").entries() == ["e/", "n", "p"]


# -- put in -------------------------------------------------------------------------------------


async def test_with_directory_keeps_what_is_there(
    base: dagger.Container, client: dagger.Client
) -> None:
    found = await base.with_directory("/etc", new(client, "new")).directory("/etc").entries()
    assert found == ["group", "new", "passwd"]


async def test_with_directory_seen_from_the_working_directory(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    made = base.with_workdir("/w").with_directory("rel", tree)
    assert await made.directory("/w/rel").entries() == [".hidden", "a.txt", "empty/", "sub/"]


async def test_with_directory_include_exclude_gitignore(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    found = base.with_directory("/d", tree, include=["sub/**"], exclude=["**/*.txt"])
    assert await found.directory("/d").glob("**") == ["sub/", "sub/deep/", "sub/deep/c.py"]
    ignoring = tree.with_new_file(".gitignore", "*.py\nempty/\n")
    found = base.with_directory("/d", ignoring, gitignore=True)
    assert await found.directory("/d").glob("sub/**") == ["sub/b.txt", "sub/deep/"]


async def test_with_directory_keeps_modes_and_owners(base: dagger.Container) -> None:
    made = base.with_exec(
        sh("mkdir -m 711 /s; echo 1 > /s/x; chmod 640 /s/x; chown 7:8 /s/x; mkdir -m 1777 /s/t")
    )
    copied = base.with_directory("/d", made.directory("/s"))
    assert await told(copied, "%n %a %u:%g", "/d/x", "/d/t") == ["/d/x 640 7:8", "/d/t 1777 0:0"]


async def test_with_directory_has_no_use_for_permissions(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    made = base.with_directory("/d", tree, permissions=0o711)
    assert await told(made, "%n %a", "/d", "/d/a.txt") == ["/d 755", "/d/a.txt 644"]


async def test_with_directory_over_a_file(base: dagger.Container, client: dagger.Client) -> None:
    made = base.with_directory("/etc/passwd", new(client, "x"))
    assert await made.directory("/etc").entries() == ["group", "passwd/"]


async def test_with_directory_through_a_link(base: dagger.Container, client: dagger.Client) -> None:
    made = base.with_symlink("/etc", "/lnk").with_directory("/lnk", new(client, "via"))
    assert await made.directory("/etc").entries() == ["group", "passwd", "via"]
    assert await made.with_exec(["readlink", "/lnk"]).stdout() == "/etc\n"


async def test_with_directory_at_the_root(base: dagger.Container, client: dagger.Client) -> None:
    whole = client.container().with_directory("/", base.rootfs())
    assert await whole.with_exec(["/bin/stat", "-c", "%u:%g %a", "/tmp"]).stdout() == "0:0 1777\n"


async def test_with_file(base: dagger.Container, tree: dagger.Directory) -> None:
    file = tree.file("a.txt")
    made = (
        base.with_file("/x/new", file, permissions=0o640)
        .with_file("/tmp", file)
        .with_file("/y/", file)
    )
    assert await told(made, "%n %a", "/x", "/x/new") == ["/x 755", "/x/new 640"]
    assert await made.directory("/tmp").entries() == ["a.txt"]
    assert await made.directory("/y").entries() == ["a.txt"]


async def test_with_file_keeps_mode_and_owner(base: dagger.Container) -> None:
    made = base.with_exec(sh("echo 1 > /x; chmod 750 /x; chown 7:8 /x"))
    assert await told(base.with_file("/y", made.file("/x")), "%a %u:%g", "/y") == ["750 7:8"]


async def test_with_file_of_a_link_takes_what_it_leads_to(base: dagger.Container) -> None:
    made = base.with_file("/copy", base.with_symlink("/etc/passwd", "/l").file("/l"))
    assert await told(made, "%F", "/copy") == ["regular file"]
    assert (await made.file("/copy").contents())[:5] == "root:"


async def test_with_files(base: dagger.Container, tree: dagger.Directory) -> None:
    sources = [tree.file("a.txt"), tree.file("sub/b.txt")]
    made = base.with_files("/fs", sources, owner="user", permissions=0o600)
    assert await told(made, "%n %a %u:%g", "/fs/a.txt", "/fs/b.txt") == [
        "/fs/a.txt 600 1000:1000",
        "/fs/b.txt 600 1000:1000",
    ]


async def test_with_new_file(base: dagger.Container) -> None:
    made = (
        base.with_workdir("/w")
        .with_env_variable("X", "xx")
        .with_new_file("rel", "1")
        .with_new_file("/abs/$X", "value $X", expand=True)
        .with_new_file("/perm", "3", permissions=0o700, owner="user")
    )
    assert await told(made, "%n %a %u:%g", "/w/rel", "/abs/xx", "/perm") == [
        "/w/rel 644 0:0",
        "/abs/xx 644 0:0",
        "/perm 700 1000:1000",
    ]
    assert await made.file("/abs/xx").contents() == "value $X"


async def test_with_new_file_over_a_link_replaces_the_link(base: dagger.Container) -> None:
    made = base.with_symlink("/etc/group", "/lf").with_new_file("/lf", "new")
    assert await told(made, "%F", "/lf") == ["regular file"]
    assert await made.file("/etc/group").contents() == await base.file("/etc/group").contents()


async def test_variables_in_both_ends_of_a_link(base: dagger.Container) -> None:
    made = base.with_env_variable("A", "alpha").with_env_variable("B", "beta")
    made = made.with_new_file("/beta.txt", "text").with_symlink("$B.txt", "/$A.txt", expand=True)
    assert await made.file("/alpha.txt").contents() == "text"


@pytest.mark.parametrize("target", ["/etc/passwd", "/nowhere"])
async def test_a_link_is_not_made_where_something_is(base: dagger.Container, target: str) -> None:
    made = base.with_symlink(target, "/there").with_symlink("/other", "/there")
    error = str(await failure(made.sync()))
    assert "symlink /other /" in error
    assert "/there: file exists" in error


async def test_with_symlink(base: dagger.Container) -> None:
    made = base.with_symlink("/etc/passwd", "/l/ink").with_workdir("/l").with_symlink("ink", "two")
    ran = made.with_exec(sh("readlink /l/ink; readlink /l/two; head -c 5 /l/two"))
    assert await ran.stdout() == "/etc/passwd\nink\nroot:"


async def test_without(base: dagger.Container, tree: dagger.Directory) -> None:
    made = (
        base.with_directory("/d", tree)
        .without_file("/d/a.txt")
        .without_directory("/d/sub")
        .without_files(["/d/.hidden", "/d/nope"])
    )
    assert await made.directory("/d").entries() == ["empty/"]


async def test_the_root_cannot_be_removed(base: dagger.Container) -> None:
    await failure(base.without_directory("/").rootfs().entries())


@pytest.mark.parametrize(
    ("owner", "numbers"),
    [
        ("user", "1000:1000"),  # a user alone is the group's number too, whatever passwd says
        ("user:staff", "1000:1001"),
        ("1000", "1000:1000"),
        ("1000:0", "1000:0"),
        ("root", "0:0"),
        (":staff", "0:1001"),
        ("12:other", "12:1002"),
    ],
)
async def test_owners(
    base: dagger.Container, tree: dagger.Directory, owner: str, numbers: str
) -> None:
    made = base.with_directory("/d", tree, owner=owner)
    assert await told(made, "%u:%g", "/d", "/d/sub/b.txt") == [numbers, numbers]


@pytest.mark.parametrize("owner", ["nobody-here", "user:nobody-here"])
async def test_an_unknown_owner(base: dagger.Container, tree: dagger.Directory, owner: str) -> None:
    for made in (
        base.with_directory("/d", tree, owner=owner),
        base.with_file("/f", tree.file("a.txt"), owner=owner),
        base.with_new_file("/n", "1", owner=owner),
    ):
        error = str(await failure(made.sync()))
        assert "nobody-here" in error
        assert "no such" in error


async def test_the_owner_is_root_whoever_the_user_is(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    made = (
        base.with_user("user")
        .with_directory("/d", tree)
        .with_file("/f", tree.file("a.txt"))
        .with_new_file("/n", "1")
    )
    assert await told(made, "%u:%g", "/d", "/d/a.txt", "/f", "/n") == ["0:0"] * 4


# -- the root file system -----------------------------------------------------------------------


async def test_rootfs(base: dagger.Container, tree: dagger.Directory) -> None:
    made = base.with_exec(["touch", "/made"])
    assert await made.rootfs().glob("ma*") == ["made"]
    assert await base.rootfs().entries() == await base.directory("/").entries()
    mounted = base.with_mounted_directory("/mnt", tree)
    assert await mounted.rootfs().entries() == await base.rootfs().entries()
    assert "mnt/" not in await mounted.with_exec(["true"]).rootfs().entries()


async def test_with_rootfs_keeps_the_configuration(
    base: dagger.Container, client: dagger.Client
) -> None:
    made = (
        base.with_entrypoint(["e"])
        .with_workdir("/tmp")
        .with_env_variable("A", "1")
        .with_rootfs(new(client, "only"))
    )
    assert await made.rootfs().entries() == ["only"]
    assert await made.entrypoint() == ["e"]
    assert await made.workdir() == "/tmp"
    assert await made.env_variable("A") == "1"


async def test_an_empty_container(client: dagger.Client) -> None:
    empty = client.container()
    assert await empty.rootfs().entries() == []
    assert await empty.directory("/").entries() == []
    assert await empty.with_new_file("/a/b", "1").rootfs().glob("**") == ["a/", "a/b"]
    await failure(empty.file("/x").contents())


# -- below mounts -------------------------------------------------------------------------------


async def test_files_of_a_mounted_directory(base: dagger.Container, tree: dagger.Directory) -> None:
    made = base.with_mounted_directory("/m", tree)
    assert await made.file("/m/sub/b.txt").contents() == "beta\n"
    assert await made.directory("/m/sub").entries() == ["b.txt", "deep/"]
    assert await made.exists("/m/a.txt")
    assert not await made.without_mount("/m").exists("/m/a.txt")


async def test_a_new_file_below_a_mount_is_in_the_mount(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    made = base.with_mounted_directory("/m", tree).with_new_file("/m/new", "1")
    assert await made.directory("/m").entries() == [".hidden", "a.txt", "empty/", "new", "sub/"]
    assert not await made.without_mount("/m").exists("/m/new")
    assert await made.with_exec(["cat", "/m/new"]).stdout() == "1"
    assert not await tree.exists("new")


async def test_a_mounted_directory_must_be_there(base: dagger.Container) -> None:
    made = base.with_mounted_directory("/m", base.directory("/nope"))
    assert "nope" in str(await failure(made.with_exec(["true"]).sync()))


async def test_nothing_is_read_or_written_below_a_cache(
    base: dagger.Container, client: dagger.Client, tree: dagger.Directory
) -> None:
    made = base.with_mounted_cache("/c", client.cache_volume(unique())).with_mounted_temp("/t")
    for question in (
        made.directory("/c").entries(),
        made.directory("/c/sub").entries(),
        made.file("/c/x").contents(),
        made.with_new_file("/c/n", "1").with_exec(["ls", "/c"]).stdout(),
        made.with_directory("/c", tree).with_exec(["ls", "/c"]).stdout(),
    ):
        assert "cannot retrieve path from cache" in str(await failure(question))
    for below in (made.directory("/t").entries(), made.file("/t/x").contents()):
        assert "cannot retrieve path from tmpfs" in str(await failure(below))


async def test_a_secret_is_no_file(base: dagger.Container, client: dagger.Client) -> None:
    secret = client.set_secret(unique("secret"), "hidden value")
    made = base.with_mounted_secret("/s", secret)
    error = str(await failure(made.file("/s").contents()))
    assert "/s" in error
    assert "no such file" in error
