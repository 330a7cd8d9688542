"""File operations that join into one: fewer of them, and the same files."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.engine import llb
from buildonce.engine.apart import apart
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.fileops import JOINED, FileActions
from buildonce.engine.llb import Output

PLATFORM = "linux/amd64"
Files: TypeAlias = dict[str, tuple[bytes, int] | None]  # content and mode; None is a folder


def done(actions: FileActions) -> Output:
    return actions.done(platform=PLATFORM)


def written(base: Output | None, path: str, text: str, mode: int = 0o644) -> Output:
    return done(FileActions(base).mkfile(path, text.encode(), mode=mode))


def kinds(output: Output) -> list[str]:
    actions = pb.Op.FromString(output.vertex.op).file.actions
    return [str(action.WhichOneof("action")) for action in actions]


def vertices(output: Output) -> int:
    return len(list(llb.walk([output])))


def files_of(output: Output | None) -> Files:
    """What running the graph makes, as far as these tests go: no links, nothing in the way."""
    if output is None:
        return {}
    op = pb.Op.FromString(output.vertex.op)
    inputs = [files_of(one) for one in output.vertex.inputs]
    results: list[Files] = []

    def taken(number: int) -> Files:
        if number < 0:
            return {}
        return inputs[number] if number < len(inputs) else results[number - len(inputs)]

    for action in op.file.actions:
        tree = dict(taken(action.input))
        match action.WhichOneof("action"):
            case "mkdir":
                _folders(tree, action.mkdir.path)
            case "mkfile":
                path = action.mkfile.path
                above = path.rpartition("/")[0]
                assert not above or tree.get(above, b"") is None, f"no folder for {path}"
                before = tree.get(path)
                mode = before[1] if before else action.mkfile.mode  # as os.WriteFile has it
                tree[path] = action.mkfile.data, mode
            case "rm":
                for path in [p for p in tree if f"{p}/".startswith(f"{action.rm.path}/")]:
                    del tree[path]
            case "copy":
                _folders(tree, action.copy.dest)
                base = action.copy.dest.rstrip("/")
                for path, content in sorted(taken(action.secondaryInput).items()):
                    if content is not None or base + path not in tree:
                        tree[base + path] = content
        results.append(tree)
    return results[-1]


def _folders(tree: Files, path: str) -> None:
    while path not in ("", "/"):
        tree.setdefault(path, None)
        path = path.rpartition("/")[0]


def test_files_written_one_after_the_other_are_one_operation() -> None:
    made: Output | None = None
    for number in range(10):
        made = written(made, f"/d/f{number}", str(number))
    assert made is not None
    assert vertices(made) == 1
    assert kinds(made) == ["mkdir", *["mkfile"] * 10]


def test_many_are_a_few() -> None:
    made: Output | None = None
    for number in range(3 * JOINED):
        made = written(made, f"/f{number}", str(number))
    assert made is not None
    assert vertices(made) <= 5
    assert len(files_of(made)) == 3 * JOINED


def test_small_directories_are_written_too() -> None:
    whole: Output | None = None
    for number in range(5):
        part = written(written(None, "/a", str(number)), "/deep/b", "b")
        whole = done(FileActions(whole).copy(part, "/", f"/d{number}", contents=True))
    assert whole is not None
    assert vertices(whole) == 1
    assert files_of(whole)["/d3/a"] == (b"3", 0o644)
    assert files_of(whole)["/d3/deep/b"] == (b"b", 0o644)


def test_what_is_written_again_has_its_new_mode() -> None:
    made = written(written(None, "/a", "1", 0o600), "/a", "2", 0o755)
    assert files_of(made) == {"/a": (b"2", 0o755)}


def test_over_a_tree_that_may_have_links_files_are_copied() -> None:
    image = llb.source("docker-image://x@sha256:1", platform=PLATFORM)
    linked = done(FileActions(written(None, "/a", "a")).symlink("/etc", "/lnk"))
    for base in (image, linked):
        assert kinds(written(base, "/lnk/f", "f")) == ["mkfile", "copy"]


def test_what_is_part_of_two_trees_stays_as_it_was() -> None:
    base = written(None, "/a", "a")
    before = base.vertex.op
    one, other = written(base, "/b", "b"), written(base, "/c", "c")
    assert base.vertex.op == before
    assert sorted(files_of(one)) == ["/a", "/b"]
    assert sorted(files_of(other)) == ["/a", "/c"]


NAMES = st.sampled_from(["/a", "/b", "/c"])
FOLDERS = st.sampled_from(["", "/d", "/d/e"])
STEPS = st.one_of(
    st.tuples(st.just("file"), FOLDERS, NAMES, st.sampled_from([0o644, 0o600])),
    st.tuples(st.just("folder"), st.sampled_from(["/d", "/d/e", "/x"])),
    st.tuples(st.just("remove"), st.sampled_from(["/a", "/d", "/d/a"])),
    st.tuples(st.just("into"), st.sampled_from(["/", "/d", "/y"])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_same_files_however_they_are_joined(steps: list[tuple[str, ...]]) -> None:
    made: Output | None = None
    wanted: Files = {}
    part = written(written(None, "/p", "p"), "/q/r", "r", 0o700)
    for number, (kind, *rest) in enumerate(steps):
        match kind:
            case "file":
                folder, name, mode = rest
                made = written(made, folder + name, str(number), int(mode))
                _folders(wanted, folder)
                wanted[folder + name] = str(number).encode(), int(mode)
            case "folder":
                made = done(FileActions(made).mkdir(rest[0]))
                _folders(wanted, rest[0])
            case "remove" if made is not None:
                made = done(FileActions(made).remove(rest[0]))
                wanted = {p: c for p, c in wanted.items() if not f"{p}/".startswith(f"{rest[0]}/")}
            case "into":
                made = done(FileActions(made).copy(part, "/", rest[0], contents=True))
                base = rest[0].rstrip("/")
                _folders(wanted, f"{base}/q")
                wanted |= {f"{base}/p": (b"p", 0o644), f"{base}/q/r": (b"r", 0o700)}
    assert files_of(made) == wanted
    if made is not None:
        assert files_of(apart(made)) == wanted


def test_taken_apart_they_share_their_layers() -> None:
    """What the daemon's comparison of two trees needs."""
    before = written(written(None, "/a", "a"), "/d/b", "b")
    after = done(FileActions(written(before, "/a", "other")).remove("/d/b"))
    lower, upper = apart(before), apart(after)
    assert files_of(lower) == files_of(before)
    assert files_of(upper) == files_of(after)
    assert lower.vertex in list(llb.walk([upper]))
    assert vertices(upper) == vertices(lower) + 2
