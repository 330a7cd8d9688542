"""Changes between directories: what they are, applied, exported, merged; and patches."""

from __future__ import annotations

from pathlib import Path

import dagger
import pytest
from dagger import ChangesetMergeConflict as Conflict

from tests.engine.engines import failure

pytestmark = pytest.mark.anyio

PATCH = """\
diff --git a/f.txt b/f.txt
--- a/f.txt
+++ b/f.txt
@@ -1,2 +1,2 @@
 one
-two
+zwei
diff --git a/new/g.txt b/new/g.txt
new file mode 100644
--- /dev/null
+++ b/new/g.txt
@@ -0,0 +1 @@
+g
diff --git a/gone/h.txt b/gone/h.txt
deleted file mode 100644
--- a/gone/h.txt
+++ /dev/null
@@ -1 +0,0 @@
-h
"""


@pytest.fixture
def before(client: dagger.Client) -> dagger.Directory:
    return (
        client.directory()
        .with_new_file("f.txt", "one\ntwo\n")
        .with_new_file("gone/h.txt", "h\n")
        .with_new_file("gone/deep/i.txt", "i\n")
        .with_new_file("kept/j.txt", "j\n", permissions=0o600)
    )


@pytest.fixture
def after(before: dagger.Directory) -> dagger.Directory:
    return (
        before.with_new_file("f.txt", "one\nzwei\ndrei\n")
        .without_directory("gone")
        .with_new_file("new/g.txt", "g\ng\n")
        .with_new_directory("empty")
    )


async def test_what_has_changed(before: dagger.Directory, after: dagger.Directory) -> None:
    changes = after.changes(before)
    assert await changes.added_paths() == ["empty/", "new/", "new/g.txt"]
    assert await changes.modified_paths() == ["f.txt"]
    assert await changes.removed_paths() == ["gone/"]
    assert not await changes.is_empty()
    assert await changes.layer().glob("**/*") == ["empty/", "f.txt", "new/", "new/g.txt"]
    assert await changes.before().digest() == await before.digest()
    assert await changes.after().digest() == await after.digest()
    assert await (await changes.sync()).modified_paths() == ["f.txt"]


async def test_statistics(before: dagger.Directory, after: dagger.Directory) -> None:
    moved = after.without_file("kept/j.txt").with_new_file("moved.txt", "j\n", permissions=0o600)
    told = []
    for stat in await moved.changes(before).diff_stats():
        counts = await stat.added_lines(), await stat.removed_lines()
        told.append((await stat.path(), (await stat.kind()).value, await stat.old_path(), *counts))
    assert told == [
        ("empty/", "ADDED", None, 0, 0),
        ("f.txt", "MODIFIED", None, 2, 1),
        ("gone/", "REMOVED", None, 0, 0),
        ("gone/deep/", "REMOVED", None, 0, 0),
        ("gone/deep/i.txt", "REMOVED", None, 0, 1),
        ("gone/h.txt", "REMOVED", None, 0, 1),
        ("moved.txt", "RENAMED", "kept/j.txt", 0, 0),
        ("new/", "ADDED", None, 0, 0),
        ("new/g.txt", "ADDED", None, 2, 0),
    ]


async def test_nothing_has_changed(before: dagger.Directory, client: dagger.Client) -> None:
    same = client.directory().with_directory("/", before)
    assert await same.changes(before).is_empty()
    assert await before.changes(before).added_paths() == []
    assert await client.changeset().is_empty()
    assert await before.changes(before).as_patch().contents() == ""


async def test_applied_elsewhere(before: dagger.Directory, after: dagger.Directory) -> None:
    elsewhere = before.with_new_file("gone/deep/own.txt", "own").with_new_file("own.txt", "own")
    done = elsewhere.with_changes(after.changes(before))
    assert await done.glob("**/*") == [
        "empty/", "f.txt", "kept/", "kept/j.txt", "new/", "new/g.txt", "own.txt"
    ]  # fmt: skip
    assert await done.file("f.txt").contents() == "one\nzwei\ndrei\n"


async def test_as_a_patch_and_back(before: dagger.Directory, after: dagger.Directory) -> None:
    patch = after.changes(before).as_patch()
    assert await patch.name() == "diff.patch"
    text = await patch.contents()
    assert "-two\n+zwei\n+drei\n" in text
    assert "deleted file mode 100644" in text
    done = before.with_patch_file(patch)
    assert await done.changes(after.without_directory("empty")).is_empty()
    assert await before.with_patch(text).file("new/g.txt").contents() == "g\ng\n"


async def test_a_patch(before: dagger.Directory) -> None:
    done = before.with_patch(PATCH)
    assert await done.file("f.txt").contents() == "one\nzwei\n"
    assert await done.glob("**/*.txt") == ["f.txt", "gone/deep/i.txt", "kept/j.txt", "new/g.txt"]
    assert await before.with_patch("").digest() == await before.digest()
    below = before.directory("kept").with_patch(PATCH.split("diff")[0] + _new("k.txt"))
    assert await below.entries() == ["j.txt", "k.txt"]


def _new(path: str) -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n"
        f"+++ b/{path}\n@@ -0,0 +1 @@\n+new\n"
    )


async def test_patches_that_do_not_fit(before: dagger.Directory, base: dagger.Container) -> None:
    other = before.with_new_file("f.txt", "something else\n")
    assert "git apply" in str(await failure(other.with_patch(PATCH).entries()))
    outside = PATCH.replace("f.txt", "../../etc/passwd")
    assert "git apply" in str(await failure(before.with_patch(outside).entries()))
    through = before.with_symlink("/tmp", "link").with_patch(_new("link/x"))
    assert await failure(through.entries())
    assert not Path("/tmp/x").exists()


async def test_written_to_the_host(
    before: dagger.Directory, after: dagger.Directory, tmp_path: Path
) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    await before.with_new_file("own", "own").export(str(target))
    outside.mkdir()
    (outside / "deep").mkdir()
    await after.changes(before).export(str(target))
    found = sorted(str(p.relative_to(target)) for p in target.rglob("*"))
    assert found == ["empty", "f.txt", "kept", "kept/j.txt", "new", "new/g.txt", "own"]
    assert (target / "f.txt").read_text() == "one\nzwei\ndrei\n"


@pytest.mark.embedded_only
async def test_a_link_on_the_host_is_not_followed(before: dagger.Directory, tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/i.txt").write_text("mine")
    target.mkdir()
    (target / "gone").symlink_to(outside)
    await before.without_directory("gone/deep").changes(before).export(str(target))
    assert (outside / "deep/i.txt").read_text() == "mine"


async def test_merged(before: dagger.Directory, client: dagger.Client) -> None:
    one = before.with_new_file("f.txt", "eins\ntwo\n").changes(before)
    two = before.with_new_file("new.txt", "new").without_file("kept/j.txt").changes(before)
    three = before.with_new_file("third.txt", "3").changes(before)
    both = one.with_changeset(two)
    assert await both.added_paths() == ["new.txt"]
    assert await both.modified_paths() == ["f.txt"]
    assert await both.removed_paths() == ["kept/"]
    assert await both.after().file("gone/h.txt").contents() == "h\n"
    three_together = one.with_changesets([two, three])
    assert await three_together.added_paths() == ["new.txt", "third.txt"]
    assert await one.with_changesets([]).modified_paths() == ["f.txt"]


async def test_lines_that_contradict_each_other(before: dagger.Directory) -> None:
    one = before.with_new_file("f.txt", "eins\ntwo\n").changes(before)
    two = before.with_new_file("f.txt", "uno\ntwo\n").changes(before)
    early = str(await failure(one.with_changeset(two, on_conflict=Conflict.FAIL_EARLY).is_empty()))
    assert '"f.txt": path modified in both changesets' in early
    assert await failure(one.with_changeset(two).is_empty())
    for chosen, text in (
        (Conflict.PREFER_OURS, "eins\ntwo\n"),
        (Conflict.PREFER_THEIRS, "uno\ntwo\n"),
    ):
        settled = one.with_changeset(two, on_conflict=chosen).after()
        assert await settled.file("f.txt").contents() == text
    marked = one.with_changeset(two, on_conflict=Conflict.LEAVE_CONFLICT_MARKERS).after()
    text = await marked.file("f.txt").contents()
    assert text.startswith("<<<<<<< ")
    assert "eins" in text
    assert "uno" in text


@pytest.mark.parametrize(
    ("chosen", "there"),
    [
        (Conflict.PREFER_OURS, True),
        (Conflict.PREFER_THEIRS, False),
        (Conflict.LEAVE_CONFLICT_MARKERS, True),
    ],
)
async def test_changed_by_one_and_removed_by_the_other(
    before: dagger.Directory, chosen: Conflict, there: bool
) -> None:
    changed = before.with_new_file("f.txt", "changed\n").changes(before)
    gone = before.without_file("f.txt").changes(before)
    early = changed.with_changeset(gone, on_conflict=Conflict.FAIL_EARLY)
    assert "removed in the other" in str(await failure(early.is_empty()))
    settled = changed.with_changeset(gone, on_conflict=chosen)
    assert ("f.txt" in await settled.after().entries()) == there
