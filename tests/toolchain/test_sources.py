"""The machine's mirrors, read from both formats of apt."""

from __future__ import annotations

from pathlib import Path

from buildonce.toolchain.sources import Source, machine_sources

STANZAS = """\
Types: deb deb-src
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://user:secret@mirror.test/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.test/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://other.test/debian bookworm main  # why
deb-src http://other.test/debian bookworm main
deb https://third.test/apt bookworm stable
"""


def suites(sources: list[Source]) -> list[tuple[str, str]]:
    return [(source.address, source.suite) for source in sources]


def test_stanzas(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(STANZAS, "utf-8")
    (tmp_path / "sources.list.d" / "old.sources.disabled").write_text(ONE_LINE, "utf-8")
    assert suites(machine_sources("bookworm", root=tmp_path)) == [
        ("http://mirror.test/debian", "bookworm"),
        ("http://mirror.test/debian", "bookworm-updates"),
        ("http://user:secret@mirror.test/debian-security", "bookworm-security"),
    ]


def test_one_line_format(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE, "utf-8")
    assert suites(machine_sources("bookworm", root=tmp_path)) == [
        ("http://other.test/debian", "bookworm")
    ]


def test_another_distribution_has_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb http://archive.test/ubuntu noble main\n"
        "deb http://archive.test/debian bookworm-updates main\n",
        "utf-8",
    )
    assert machine_sources("bookworm", root=tmp_path) == []


def test_a_password_does_not_get_into_an_image() -> None:
    source = Source("https://user:secret@mirror.test:8443/debian", "bookworm", keyring="/k.gpg")
    kept = source.without_password()
    assert kept.line() == "deb [signed-by=/k.gpg] https://mirror.test:8443/debian bookworm main"
    assert "secret" in source.line()
