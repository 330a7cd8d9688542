"""Images of one program: reproducible, of static programs only, served on loopback."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildonce.toolchain import binaries
from buildonce.toolchain.binaries import is_static
from buildonce.toolchain.table import GO_MODULES
from buildonce.toolchain.tool_images import ToolImage, serves, tool_images
from tests import loopback
from tests.toolchain.conftest import Sandbox

pytestmark = pytest.mark.anyio

GITLEAKS = next(module for module in GO_MODULES if module.name == "gitleaks")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with loopback.registry(tmp_path / "registry") as address:
        yield address


def elf(*, interpreter: bool) -> bytes:
    """The smallest ELF header with one segment: PT_INTERP or PT_LOAD."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:56] = (56).to_bytes(2, "little")
    header[56:58] = (1).to_bytes(2, "little")
    return bytes(header) + (3 if interpreter else 1).to_bytes(4, "little") + bytes(52)


@pytest.fixture
def built(sandbox: Sandbox) -> Path:
    """A gitleaks in the cache, as if it had been built."""
    program = binaries._module_target(GITLEAKS) / "gitleaks"
    program.parent.mkdir(parents=True)
    program.write_bytes(elf(interpreter=False))
    program.chmod(0o755)
    return program


def test_static_and_dynamic_programs_are_told_apart(tmp_path: Path) -> None:
    static, dynamic, script = (tmp_path / name for name in ("static", "dynamic", "script"))
    static.write_bytes(elf(interpreter=False))
    dynamic.write_bytes(elf(interpreter=True))
    script.write_text("#!/bin/sh\n", "utf-8")
    assert [is_static(file) for file in (static, dynamic, script)] == [True, False, False]
    assert not is_static(Path(sys.executable).resolve())


def test_what_needs_a_library_is_passed_over(sandbox: Sandbox, built: Path) -> None:
    sandbox.program("gitleaks", "echo v8.30.1")
    on_path, static = binaries.find("gitleaks"), binaries.find_static("gitleaks")
    assert on_path is not None and static is not None
    assert (on_path.origin, static.path) == ("path", built)


async def test_it_is_served_until_the_program_is_another(built: Path, address: str) -> None:
    image = ToolImage("gitleaks", GITLEAKS, address)
    assert image.made() is None and not image.served()
    digest = await image.publish()
    layout = image.made()
    assert layout is not None
    assert image.served() and serves(image.reference, layout)
    assert image.reference == f"{address}/base/gitleaks:{GITLEAKS.version}"
    shutil.rmtree(layout)
    assert await image.publish() == digest
    built.write_bytes(elf(interpreter=False) + b"newer")
    assert not image.served()
    assert await image.publish() != digest
    assert image.served()


def test_the_offline_profile_names_what_the_set_up_serves() -> None:
    text = Path(__file__).parents[2].joinpath("ci/pipeline.toml").read_text("utf-8")
    tools = tomllib.loads(text)["profiles"]["offline"]["tools"]
    assert {name: tool["image"] for name, tool in tools.items()} == {
        image.name: image.reference for image in tool_images("127.0.0.1:5080")
    }
    public = tomllib.loads(text)["tools"]
    assert public.keys() == tools.keys()
    for image in tool_images("127.0.0.1:5080"):
        assert public[image.name]["image"].endswith(f":{image.module.version}")
