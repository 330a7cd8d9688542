"""Patterns mean what they mean in a .dockerignore."""

from __future__ import annotations

import pytest

from buildonce.engine.buildkit import BadPattern
from buildonce.engine.buildkit.patterns import Matcher
from buildonce.engine.buildkit.tree import Entry, filtered

# Answers of Docker's own matcher (moby/patternmatcher 0.6).
CASES = [
    ("**", "file", True),
    ("**", "a/b/c", True),
    ("**/", "file", True),
    ("**/**", "dir/file", True),
    ("a**/*.txt", "abc.txt", True),
    ("a**/*.txt", "a/b/c.txt", True),
    ("a/*.txt", "a/b/c.txt", False),
    ("a/**/*.txt", "a/file.txt", True),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "ab", False),
    ("a/b/*.txt", "a/b/c.txt", True),
    ("dir", "dir/sub/file", True),
    ("dir/", "dir/file", True),
    ("dir", "directory", False),
    ("*/file", "a/file", True),
    ("*/file", "file", False),
    ("*/file", "a/b/file", False),
    ("**/file", "file", True),
    ("**/file", "a/b/file", True),
    ("**/file", "a/bfile", False),
    ("**file", "a/bfile", True),
    ("**/f/x", "a/b/f/x", True),
    ("abc?", "abcd", True),
    ("abc?", "abc/", False),
    ("a[b-d]e", "ace", True),
    ("a[^b-d]e", "ace", False),
    ("a[^b-d]e", "aze", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False),
    (".d", ".d", True),
    (".d", "xd", False),
    ("a.b", "aXb", False),
    ("a+b", "aab", False),
    ("(x)", "x", False),
    ("./a/../b", "b", True),
    ("/a", "a", False),
    ("  spaced  ", "spaced", True),
    ("*.py", "a/b.py", False),
    ("**/*.py", "b.py", True),
    ("*", "a/b", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), CASES)
def test_single(pattern: str, path: str, expected: bool) -> None:
    assert Matcher([pattern]).matches(path) is expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["**/*.md", "!README.md"], "README.md", False),
        (["**/*.md", "!README.md"], "docs/README.md", True),
        (["docs", "!docs/keep"], "docs/keep", False),
        (["docs", "!docs/keep"], "docs/keep/below", False),
        (["docs", "!docs/keep", "docs/keep/not"], "docs/keep/not", True),
        (["!a", "a"], "a", True),
        (["a", "!a"], "a", False),
        (["*", "!*/b"], "x/b", False),
    ],
)
def test_several(patterns: list[str], path: str, expected: bool) -> None:
    assert Matcher(patterns).matches(path) is expected


@pytest.mark.parametrize("pattern", ["!", "[", "a[", "[a-", "[]", "a\\", "[^]", "[-a]"])
def test_malformed(pattern: str) -> None:
    with pytest.raises(BadPattern) as caught:
        Matcher([pattern])
    assert "pattern" in str(caught.value)


def _entries(*paths: str) -> list[Entry]:
    return [
        Entry(path.rstrip("/"), (1 << 31) | 0o755 if path.endswith("/") else 0o644, 0, 0, "", b"")
        for path in paths
    ]


def test_directories_on_the_way_are_listed_once_and_first() -> None:
    tree = _entries("a/", "a/b/", "a/b/c.py", "a/b/d.py", "a/b/e.txt", "x/", "x/y.txt")
    assert [e.path for e in filtered(tree, ["**/*.py"], [])] == ["a", "a/b", "a/b/c.py", "a/b/d.py"]


def test_an_exception_below_an_excluded_directory() -> None:
    tree = _entries("a/", "a/b/", "a/b/keep", "a/b/lose", "a/c")
    assert [e.path for e in filtered(tree, [], ["a", "!a/b/keep"])] == ["a", "a/b", "a/b/keep"]
