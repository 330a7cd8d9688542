"""Copies over what is already there: links to folders are followed, files and folders replaced."""

from __future__ import annotations

from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, sh, unique

pytestmark = pytest.mark.anyio

SHOW = "find . ! -type d -exec stat -c '%N %a %u:%g' {} + | tr -d \"'\" | sort"


@pytest.fixture
def merged(client: dagger.Client, tmp_path: Path) -> dagger.Directory:
    """What a distribution's file system looks like: `bin` is a link to `usr/bin`."""
    for folder in ("usr/bin", "etc", "data/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "alias").symlink_to("/data")
    (tmp_path / "up").symlink_to("../../data/../etc")
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "etc/name").write_text("old\n")
    (tmp_path / "usr/bin/tool").write_text("old\n")
    (tmp_path / "link").symlink_to("etc/name")
    (tmp_path / "stamp").write_text(unique())
    return client.host().directory(str(tmp_path)).without_file("stamp")


def files(client: dagger.Client, *paths: str) -> dagger.Directory:
    made = client.directory()
    for path in paths:
        made = made.with_new_file(path, f"{path}\n")
    return made


async def shown(base: dagger.Container, tree: dagger.Directory) -> list[str]:
    """Its files and links, with modes and owners."""
    asked = base.with_mounted_directory("/tree", tree).with_workdir("/tree").with_exec(sh(SHOW))
    return (await asked.stdout()).splitlines()


async def changes(
    base: dagger.Container, before: dagger.Directory, after: dagger.Directory
) -> tuple[set[str], set[str]]:
    """The lines of `shown` that are gone, and those that are new."""
    old, new = set(await shown(base, before)), set(await shown(base, after))
    return old - new, new - old


async def test_links_to_folders_in_a_tree_are_followed(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    new = files(client, "bin/tool", "bin/more/of", "alias/deep/x", "alias/y", "up/z", "etc/other")
    laid = merged.with_directory("/", new)
    assert await laid.file("usr/bin/tool").contents() == "bin/tool\n"
    gone, added = await changes(base, merged, laid)
    assert not gone
    assert {line.split()[0] for line in added} == {
        "./usr/bin/more/of",
        "./data/deep/x",
        "./data/y",
        "./etc/z",
        "./etc/other",
    }


async def test_a_link_behind_a_link(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    tree = merged.with_symlink("../../usr", "data/deep/usr")
    laid = tree.with_directory("/", files(client, "alias/deep/usr/bin/x", "alias/deep/y"))
    gone, added = await changes(base, tree, laid)
    assert not gone
    assert {line.split()[0] for line in added} == {"./usr/bin/x", "./data/deep/y"}


async def test_what_is_selected_is_what_counts(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    new = files(client, "bin/tool", "etc/name/x", "alias/a.txt", "alias/b.bin")
    laid = merged.with_directory("/", new, include=["alias"], exclude=["**/*.bin"])
    gone, added = await changes(base, merged, laid)
    assert not gone
    assert {line.split()[0] for line in added} == {"./data/a.txt"}


async def test_owner_and_names_that_look_like_patterns(
    client: dagger.Client, base: dagger.Container
) -> None:
    tree = files(client, "real/f").with_symlink("real", "a[b]*").with_symlink("real", " c")
    before = client.container().with_rootfs(await tree.sync()).rootfs()
    new = files(client, "a[b]*/x", "ab/y", " c/z", "c/w")
    laid = client.container().with_rootfs(before).with_directory("/", new, owner="5:6").rootfs()
    _, added = await changes(base, before, laid)
    assert added == {
        "./real/x 644 5:6",
        "./ab/y 644 5:6",
        "./real/z 644 5:6",
        "./c/w 644 5:6",
    }


@pytest.mark.parametrize("name", ["etc/name", "dead"])
async def test_what_is_no_folder_gives_way_to_one(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory, name: str
) -> None:
    laid = merged.with_directory("/", files(client, f"{name}/inside", "bin/x"))
    gone, added = await changes(base, merged, laid)
    assert {line.split()[0] for line in gone} == {f"./{name}"}
    assert {line.split()[0] for line in added} == {f"./{name}/inside", "./usr/bin/x"}


async def test_a_file_at_the_place_itself(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    laid = merged.with_directory("etc/name", files(client, "inside"))
    assert await laid.directory("etc").glob("**") == ["name/", "name/inside"]


async def test_folders_give_way_to_files_and_links(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    laid = merged.with_directory("/", files(client, "data").with_symlink("elsewhere", "etc"))
    assert await laid.file("data").contents() == "data\n"
    assert "./etc -> elsewhere 777 0:0" in await shown(base, laid)


@pytest.mark.parametrize(("name", "why"), [("link", "non-directory"), ("loop", "too many links")])
async def test_other_links_stay(
    client: dagger.Client, merged: dagger.Directory, name: str, why: str
) -> None:
    laid = merged.with_directory(name, files(client, "inside"))
    assert why in str(await failure(laid.entries()))


async def test_a_file_where_a_folder_is_meant_stays(
    client: dagger.Client, merged: dagger.Directory
) -> None:
    question = client.container().with_rootfs(merged).with_new_file("/etc/name/x", "x")
    error = str(await failure(question.file("/etc/name/x").contents()))
    assert "non-directory" in error
    assert "/etc/name" in error


async def test_changes_are_laid_over_links_too(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    new = files(client, "bin/more", "etc/name/x")
    laid = merged.with_changes(new.changes(client.directory()))
    _, added = await changes(base, merged, laid)
    assert {line.split()[0] for line in added} == {"./usr/bin/more", "./etc/name/x"}


async def test_several_in_a_row(
    client: dagger.Client, base: dagger.Container, merged: dagger.Directory
) -> None:
    laid = merged
    for name in ("one", "two", "three"):
        laid = laid.with_directory("/", files(client, f"bin/{name}", f"{name}/file"))
        laid = laid.with_new_file(f"alias/{name}", name)
    found = await laid.glob("**")
    assert {"usr/bin/one", "usr/bin/two", "usr/bin/three", "data/two", "three/file"} <= {*found}
    assert "bin" in found


async def test_what_comes_after(
    client: dagger.Client, base: dagger.Container, tmp_path: Path
) -> None:
    """Commands, their services and exports go on from what gave way."""
    with_link = base.with_symlink("/home/user", "/me").with_new_file("/home/user/old", "old")
    container = await with_link.with_exec(["true"]).sync()
    word = unique()
    server = (
        base.with_new_file("/www/index.html", word)
        .with_exposed_port(80)
        .as_service(args=["httpd", "-f", "-p", "80", "-h", "/www"])
    )
    laid = (
        container.with_directory("/", files(client, "me/new"))
        .with_service_binding("server", server)
        .with_exec(sh("nc server 80 < /dev/null; cat /home/user/new > /home/user/out"))
        .with_exec(["ls", "/home/user"])
    )
    assert (await laid.stdout()).split() == ["new", "old", "out"]
    await laid.directory("/home").export(str(tmp_path / "home"))
    assert (tmp_path / "home/user/out").read_text() == "me/new\n"
    await laid.export(str(tmp_path / "image.tar"))
    assert (tmp_path / "image.tar").stat().st_size > 1000
