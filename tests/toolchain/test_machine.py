"""The whole set-up remembers that it was done, until something it depends on changes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import anyio
import pytest

from buildonce.toolchain import base_image, binaries, oci
from buildonce.toolchain.machine import Setup
from buildonce.toolchain.registry import LoopbackRegistry, Status
from tests.toolchain.conftest import Sandbox


@pytest.fixture
def done(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A set-up that has succeeded, with a registry said to run."""
    sandbox.program("buildctl", "echo buildctl v0.26.3")
    setup = Setup(["images.test/python:3"], LoopbackRegistry(5080, sandbox.home), profile="")
    monkeypatch.setattr(
        LoopbackRegistry,
        "status",
        lambda self: Status(True, self.address, self.data, self.log),
    )
    setup.remember()
    assert setup.remembered() is not None
    return setup


def test_other_pins_are_another_set_up(
    done: Setup, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sandbox.path / "shim"
    other.mkdir()
    (other / "go.mod").write_text("module example.invalid/shim\n", "utf-8")
    monkeypatch.setattr(
        "buildonce.toolchain.machine.OWN_MODULES", (binaries.OwnModule("shim", other),)
    )
    assert done.remembered() is None


def test_other_images_are_another_set_up(done: Setup) -> None:
    done.images.append("elsewhere.test/python:3")
    assert done.remembered() is None


def test_a_variable_of_ours_is_another_set_up(done: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDONCE_PROFILE", "offline")
    assert done.remembered() is None


def test_a_program_that_has_gone_is_noticed(done: Setup, sandbox: Sandbox) -> None:
    (sandbox.path / "buildctl").unlink()
    assert done.remembered() is None


def test_a_registry_that_has_stopped_is_noticed(
    done: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        LoopbackRegistry,
        "status",
        lambda self: Status(False, self.address, self.data, self.log),
    )
    assert done.remembered() is None


def test_a_damaged_memory_is_none(done: Setup, sandbox: Sandbox) -> None:
    (sandbox.cache / "setup.json").write_text('{"key": 1', "utf-8")
    assert done.remembered() is None


def test_every_step_is_after_ones_before_it(done: Setup) -> None:
    names: set[str] = set()
    for step in done.steps():
        assert names.issuperset(step.after)
        names.add(step.name)


@pytest.mark.e2e
def test_the_base_image_has_nothing_of_this_machine(tmp_path: Path) -> None:
    """Made for real (or taken from the cache, which is the same): what is in it."""
    layout = anyio.run(base_image.make)
    assert base_image.made() == layout
    layer = max((layout / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)
    assert oci.layout_digest(layout).startswith("sha256:")
    with tarfile.open(layer) as tar:
        entries = {entry.name.removeprefix("./"): entry for entry in tar}
        assert entries["usr/local/bin/python"].linkname == "/usr/bin/python3"
        for program in ("usr/bin/git", "usr/bin/pip3", "etc/ssl/certs/ca-certificates.crt"):
            assert program in entries
        assert not {"etc/hostname", "etc/resolv.conf", "etc/machine-id"} & {
            name for name, entry in entries.items() if entry.size
        }
        assert not [name for name in entries if name.startswith(("var/log/apt/", "dev/"))]
        trusted = tar.extractfile(entries["etc/ssl/certs/ca-certificates.crt"])
        assert trusted is not None
        inside = certificates(trusted.read().decode())
        packaged = {
            certificate
            for name, entry in entries.items()
            if name.startswith("usr/share/ca-certificates/") and entry.isreg()
            for certificate in certificates((tar.extractfile(entry) or trusted).read().decode())
        }
        # What is trusted is what Debian's package has: none of the machine's own authorities.
        assert inside
        assert inside <= packaged
        assert not [
            name
            for name, entry in entries.items()
            if name.startswith("usr/local/share/ca-certificates/") and entry.isreg()
        ]


def certificates(text: str) -> set[str]:
    return {
        "".join(part.partition("-----END CERTIFICATE-----")[0].split())
        for part in text.split("-----BEGIN CERTIFICATE-----")[1:]
    }
