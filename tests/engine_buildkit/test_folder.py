"""A folder that is written to is never left, whatever is sent and whatever lies in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from buildonce.engine.buildkit import filemode
from buildonce.engine.buildkit.folder import FolderWriter, UnsafePath
from buildonce.engine.buildkit.proto.session_pb2 import Stat

DIRECTORY, LINK = filemode.DIRECTORY | 0o755, filemode.SYMLINK | 0o777


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def write(folder: Path, *entries: tuple[str, int, bytes | str]) -> None:
    writer = FolderWriter(folder)
    try:
        for path, mode, content in entries:
            target = content.encode() if isinstance(content, str) else b""
            stat = Stat(path=os.fsencode(path), mode=mode, modTime=10**18, linkname=target)
            number = writer.entry(stat)
            if number is not None:
                assert isinstance(content, bytes)
                for part in (content[:2], content[2:]):
                    if part:
                        assert not writer.data(number, part)
                assert writer.data(number, b"")
        writer.finish()
    finally:
        writer.close()


def test_files_with_their_modes_and_times(folder: Path) -> None:
    write(
        folder,
        ("a", filemode.DIRECTORY | 0o500, b""),
        ("a/f", 0o640, b"hello"),
        ("a/g", 0o755 | filemode.SETUID, b""),
        ("l", LINK, "a/f"),
    )
    assert (folder / "l").read_bytes() == b"hello"
    assert (folder / "a/f").stat().st_mode & 0o7777 == 0o640
    assert (folder / "a/g").stat().st_mode & 0o7777 == 0o4755
    assert (folder / "a").stat().st_mode & 0o7777 == 0o500
    assert (folder / "a/f").stat().st_mtime_ns == (folder / "a").stat().st_mtime_ns == 10**18
    (folder / "a").chmod(0o700)


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "a//x", ".", "..", "", "a/./x", "a\0b", "a/.."]
)
def test_paths_that_would_lead_out(folder: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        write(folder, (path, 0o644, b"evil"))
    assert not (folder.parent / "x").exists()


def test_a_link_that_was_sent_is_no_way_out(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        write(folder, ("a", LINK, str(outside)), ("a/x", 0o644, b"evil"))
    assert not list(outside.iterdir())


def test_a_link_that_lies_there_is_replaced(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (folder / "a").symlink_to(outside)
    (folder / "f").symlink_to(outside / "precious")
    write(folder, ("a", DIRECTORY, b""), ("a/x", 0o644, b"in"), ("f", 0o644, b"new"))
    assert (folder / "a/x").read_bytes() == b"in"
    assert not (folder / "a").is_symlink()
    assert (folder / "f").read_bytes() == b"new"
    assert (outside / "precious").read_text() == "kept"
    assert [p.name for p in outside.iterdir()] == ["precious"]


def test_a_hard_link_stays_inside(folder: Path) -> None:
    (folder.parent / "outside").write_text("secret")
    with pytest.raises(UnsafePath):
        write(folder, ("a", 0o644, "../outside"))
    write(folder, ("a", 0o644, b"one"), ("b", 0o644, "a"))
    assert (folder / "a").stat().st_ino == (folder / "b").stat().st_ino


def test_what_lies_there_is_merged_with(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a/mine").write_text("kept")
    (folder / "b").mkdir()
    (folder / "b/below").write_text("")
    (folder / "c").write_text("a file")
    write(
        folder,
        ("a", DIRECTORY, b""),
        ("a/theirs", 0o644, b"new"),
        ("b", 0o644, b"now a file"),
        ("c", DIRECTORY, b""),
    )
    assert (folder / "a/mine").read_text() == "kept"
    assert (folder / "a/theirs").read_text() == "new"
    assert (folder / "b").read_text() == "now a file"
    assert (folder / "c").is_dir()


def test_a_file_that_is_not_whole_is_not_there(folder: Path) -> None:
    (folder / "f").write_text("old")
    writer = FolderWriter(folder)
    number = writer.entry(Stat(path=b"f", mode=0o644))
    assert number == 0
    writer.data(number, b"half of it")
    assert (folder / "f").read_text() == "old"
    writer.close()
    assert [p.name for p in folder.iterdir()] == ["f"]


def test_content_that_was_not_asked_for(folder: Path) -> None:
    writer = FolderWriter(folder)
    with pytest.raises(UnsafePath):
        writer.data(5, b"evil")
    writer.close()


def test_devices_and_pipes_are_not_made(folder: Path) -> None:
    write(folder, ("null", filemode.DEVICE | filemode.CHAR_DEVICE | 0o666, b""))
    write(folder, ("pipe", filemode.NAMED_PIPE | 0o666, b""))
    assert not list(folder.iterdir())


def test_names_that_are_not_text(folder: Path) -> None:
    name = os.fsdecode(b"\xff\n")
    write(folder, (name, 0o644, b"x"))
    assert [os.fsencode(p.name) for p in folder.iterdir()] == [b"\xff\n"]


def test_many_directories(folder: Path) -> None:
    entries: list[tuple[str, int, bytes | str]] = []
    for number in range(500):
        entries += [(f"d{number:03}", DIRECTORY, b""), (f"d{number:03}/f", 0o644, b"x")]
    write(folder, *entries)
    assert len(list(folder.glob("*/f"))) == 500
