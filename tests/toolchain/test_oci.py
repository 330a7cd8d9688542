"""Images written from a tar: the same content gives the same digest, whoever made the tar."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from buildonce.toolchain import base_image, oci


def write_tar(path: Path, names: list[str], *, owner: str, mtime: float) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            data = name.encode()
            entry.size, entry.mtime, entry.uname, entry.gname = len(data), mtime, owner, owner
            entry.pax_headers = {"SCHILY.xattr.user.kept": "yes", "comment": owner}
            tar.addfile(entry, io.BytesIO(data))
    return path


def layout(folder: Path, tar: Path) -> str:
    folder.mkdir()
    return oci.write_layout(
        folder,
        tar,
        architecture="amd64",
        created="2023-06-10T00:00:00Z",
        config={"Env": ["A=b"]},
        keep=base_image.belongs,
    )


def test_owners_names_and_fractions_of_seconds_do_not_change_the_digest(tmp_path: Path) -> None:
    names = ["./etc/os-release", "./usr/bin/python3"]
    one = write_tar(tmp_path / "one.tar", names, owner="ann", mtime=1000)
    two = write_tar(tmp_path / "two.tar", names, owner="bob", mtime=1000.25)
    digest = layout(tmp_path / "one", one)
    assert layout(tmp_path / "two", two) == digest
    other = write_tar(tmp_path / "three.tar", names[:1], owner="ann", mtime=1000)
    assert layout(tmp_path / "three", other) != digest


def test_every_blob_is_what_its_name_says(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", ["./a", "./etc/resolv.conf"], owner="x", mtime=1)
    folder = tmp_path / "layout"
    digest = layout(folder, tar)
    assert oci.layout_digest(folder) == digest
    blobs = {file.name: file.read_bytes() for file in (folder / "blobs" / "sha256").iterdir()}
    assert len(blobs) == 3
    for name, data in blobs.items():
        assert hashlib.sha256(data).hexdigest() == name
    manifest = json.loads(blobs[digest.removeprefix("sha256:")])
    (layer,) = manifest["layers"]
    plain = gzip.decompress(blobs[layer["digest"].removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(plain)) as entries:
        (entry,) = entries.getmembers()  # the host's resolver is left out
        assert (entry.name, entry.uname, entry.mtime) == ("./a", "", 1)
        assert entry.pax_headers == {"SCHILY.xattr.user.kept": "yes"}


@pytest.mark.parametrize(
    "name",
    [
        "./etc/resolv.conf",
        "./etc/hostname",
        "./etc/apt/apt.conf.d/99mmdebstrap",  # may hold a proxy with a password
        "./etc/apt/sources.list",  # may hold a mirror with a password; written anew
        "./dev/null",
        "./var/log/dpkg.log",
        "./var/lib/apt/lists/mirror_Packages",
        "./var/cache/apt/pkgcache.bin",
        "./usr/lib/python3.11/EXTERNALLY-MANAGED",
    ],
)
def test_what_is_of_the_machine_or_the_making_is_left_out(name: str) -> None:
    assert not base_image.belongs(tarfile.TarInfo(name))


@pytest.mark.parametrize(
    "name",
    ["./dev", "./run", "./tmp", "./etc/ssl/certs/ca-certificates.crt", "./var/lib/dpkg/status"],
)
def test_what_an_image_needs_is_kept(name: str) -> None:
    assert base_image.belongs(tarfile.TarInfo(name))
