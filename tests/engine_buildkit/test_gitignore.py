"""`.gitignore` means what git says it means: every answer here is compared with git's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildonce.engine.buildkit import walk

pytestmark = pytest.mark.anyio
Fill = Callable[[Path, dict[str, str]], Path]


def kept_by_git(root: Path) -> set[str]:
    """The files that git would take: those it knows of or could be told to add."""
    git = ["git", "-c", "core.excludesFile=/dev/null", "-c", "core.quotePath=off", "-C", str(root)]
    command = [*git, "ls-files", "-z", "--others", "--exclude-standard", "."]
    output = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    return {path for path in output.split("\0") if path}


async def kept_by_us(root: Path) -> set[str]:
    tree = await walk(root, gitignore=True, exclude=[".git"])
    return {entry.path for entry in tree.entries if not entry.is_dir}


def repository(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", str(root)], check=True, capture_output=True)
    return root


TREE = {
    "a.py": "",
    "a.pyc": "",
    "build/out": "",
    "src/build/out": "",
    "src/a.pyc": "",
    "src/keep.pyc": "",
    "docs/x/y/z.txt": "",
    "docs/x/z.txt": "",
    "node_modules/m/index.js": "",
    "node_modules/m/keep.js": "",
    "foo bar/x": "",
    "#hash": "",
    "!bang": "",
    "trailing ": "",
    "[x]": "",
    "deep/er/than/that.log": "",
}


@pytest.mark.parametrize(
    "ignores",
    [
        {"": "*.pyc\nbuild/\n"},
        {"": "/build\n"},
        {"": "build\n!src/build\n"},
        {"": "*.pyc\n!keep.pyc\n"},
        {"": "*.pyc\n", "src": "!keep.pyc\n"},
        {"": "node_modules\n!node_modules/m/keep.js\n"},
        {"": "node_modules/*\n!node_modules/m\nnode_modules/m/*\n!node_modules/m/keep.js\n"},
        {"": "docs/**/z.txt\n"},
        {"": "**/z.txt\n!docs/x/z.txt\n"},
        {"": "docs/x/\n!docs/x/z.txt\n"},
        {"": "\\#hash\n\\!bang\ntrailing\\ \n\\[x\\]\n"},
        {"": "# comment\n\nfoo bar/\r\n"},
        {"": "*\n!*/\n!*.py\n"},
        {"": "/*\n!/src\n"},
        {"": "deep/**\n"},
        {"": "deep/**/that.log\n", "deep": "!er\n"},
        {"docs": "/x/z.txt\n", "docs/x": "y\n"},
        {"": "a.[!p]y\na.p[xyz]c\n"},
        {"": "*.py[cod]\n*.lo?\n"},
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_like_git(tmp_path: Path, fill: Fill, ignores: dict[str, str]) -> None:
    root = repository(tmp_path / "r")
    fill(root, TREE)
    fill(root, {str(Path(folder, ".gitignore")): text for folder, text in ignores.items()})
    assert await kept_by_us(root) == kept_by_git(root)


PIECES = st.sampled_from(["*", "**", "?", "a", "b", "c", "/", "!", "*.x", "a/b", "[ab]", "/**/"])
PATTERN = st.lists(PIECES, min_size=1, max_size=4).map("".join)


@given(
    st.lists(PATTERN, min_size=1, max_size=4),
    st.lists(PATTERN, max_size=3),
)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_patterns_like_git(
    tmp_path_factory: pytest.TempPathFactory, top: list[str], inner: list[str]
) -> None:
    root = repository(tmp_path_factory.mktemp("any"))
    for path in ("a", "b/a", "b/c", "b/b/a.x", "c/a/b/c", "c/x", "c/b.x"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")
    (root / ".gitignore").write_text("\n".join(top))
    (root / "b" / ".gitignore").write_text("\n".join(inner))
    assert await kept_by_us(root) == kept_by_git(root), (top, inner)


async def test_patterns_above_the_directory_count(tmp_path: Path, fill: Fill) -> None:
    root = repository(tmp_path / "r")
    fill(root, {".gitignore": "*.log\n/pkg/tmp\n", "pkg/a.log": "", "pkg/tmp": "", "pkg/b": ""})
    assert await kept_by_us(root / "pkg") == kept_by_git(root / "pkg") == {"b"}


async def test_without_asking_nothing_is_ignored(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, {".gitignore": "*\n", "a": ""})
    assert [e.path for e in (await walk(tmp_path)).entries] == [".gitignore", "a"]
