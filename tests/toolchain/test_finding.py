"""Where a program is taken from: configuration, PATH, cache, in this order."""

from __future__ import annotations

import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain import binaries, find
from buildonce.toolchain.table import GO_MODULES, parse_version
from tests.toolchain.conftest import Sandbox

BUILDKIT = next(module for module in GO_MODULES if module.name == "buildkit")


def in_cache(sandbox: Sandbox, name: str) -> str:
    folder = binaries._module_target(BUILDKIT)
    folder.mkdir(parents=True)
    (folder / name).write_text("", "utf-8")
    return str(folder / name)


def test_a_bare_machine_has_none(sandbox: Sandbox) -> None:
    assert find("buildctl") is None


def test_what_the_user_configured_comes_first(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cache(sandbox, "buildctl")
    sandbox.program("buildctl", "echo buildctl v0.26.3")
    own = sandbox.program("my-buildctl", "echo buildctl v0.1.0")
    monkeypatch.setenv("BUILDONCE_BUILDCTL", str(own))
    found = find("buildctl")
    assert found is not None
    # An old version too: the user has decided.
    assert (found.path, found.origin, found.version) == (own, "configured", "0.1.0")


def test_a_configured_path_without_a_program_is_an_error(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDONCE_BUILDKITD", str(sandbox.path / "nothing"))
    with pytest.raises(BuildonceError) as caught:
        find("buildkitd")
    assert "BUILDONCE_BUILDKITD" in caught.value.message
    assert caught.value.remedy


def test_the_path_comes_before_the_cache(sandbox: Sandbox) -> None:
    in_cache(sandbox, "buildctl")
    program = sandbox.program("buildctl", "echo buildctl github.com/moby/buildkit v0.27.0 abc")
    found = find("buildctl")
    assert found is not None
    assert (found.path, found.origin, found.version) == (program, "path", "0.27.0")


@pytest.mark.parametrize("version", ["v0.11.6", "v1.0.0", "unknown"])
def test_a_version_that_does_not_suit_is_passed_over(sandbox: Sandbox, version: str) -> None:
    cached = in_cache(sandbox, "buildctl")
    sandbox.program("buildctl", f"echo buildctl {version}")
    found = find("buildctl")
    assert found is not None
    assert (str(found.path), found.origin) == (cached, "cache")


def test_a_program_is_asked_for_its_version_once_until_it_changes(sandbox: Sandbox) -> None:
    asked = sandbox.path / "asked"
    sandbox.program("buildctl", f"echo . >> {asked}; echo buildctl v0.26.3")
    for _ in range(3):
        assert find("buildctl") is not None
    assert asked.read_text("utf-8").split() == ["."]
    sandbox.program("buildctl", f"echo . >> {asked}; echo buildctl v0.9.0 older")
    assert find("buildctl") is None
    assert asked.read_text("utf-8").split() == [".", "."]


def test_a_damaged_version_cache_is_no_matter(sandbox: Sandbox) -> None:
    sandbox.program("buildctl", "echo buildctl v0.26.3")
    sandbox.cache.mkdir(exist_ok=True)
    (sandbox.cache / "versions.json").write_text("{", "utf-8")
    assert find("buildctl") is not None


def test_a_program_of_the_distribution_may_have_another_name(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(sandbox.path))
    registry = sandbox.program("registry", "echo registry github.com/docker/distribution v2.8.2")
    found = find("docker-registry")
    assert found is not None
    assert (found.path, found.version) == (registry, "2.8.2")


@pytest.mark.anyio
async def test_a_missing_program_of_the_distribution_names_its_package(sandbox: Sandbox) -> None:
    with pytest.raises(BuildonceError) as caught:
        await binaries.ensure("haproxy")
    assert "apt-get install" in (caught.value.remedy or "")


def test_the_cache_is_addressed_by_the_pins(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = binaries._module_target(BUILDKIT)
    other = sandbox.path / "toolchain" / "go" / "buildkit"
    other.mkdir(parents=True)
    for name in ("go.mod", "go.sum"):
        (other / name).write_bytes((BUILDKIT.folder / name).read_bytes())
    monkeypatch.setattr("buildonce.toolchain.table.SOURCES", sandbox.path)
    assert binaries._module_target(BUILDKIT) == before
    with (other / "go.sum").open("a") as sums:
        sums.write("\n")
    assert binaries._module_target(BUILDKIT) != before


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("buildctl github.com/moby/buildkit v0.26.3 c70e8e6", (0, 26, 3)),
        ("go1.26.8", (1, 26, 8)),
        ("HAProxy version 2.6.12-1+deb12u4 2026/01/01", (2, 6, 12)),
        ("runc version 1.1.5+ds1", (1, 1, 5)),
        ("0.22.1", (0, 22, 1)),
        ("nothing of the kind", None),
    ],
)
def test_versions_are_read_from_what_programs_print(
    text: str, version: tuple[int, ...] | None
) -> None:
    assert parse_version(text) == version


def test_every_pinned_module_pins_the_version_of_the_table() -> None:
    for module in GO_MODULES:
        pins = (module.folder / "go.mod").read_text("utf-8")
        for package in module.packages.values():
            path = next(
                line.split()[0]
                for line in pins.splitlines()
                if line.split()[1:2] == [module.version] and package.startswith(line.split()[0])
            )
            assert package.startswith(path)
            assert f"\t{package}\n" in pins or f"tool {package}\n" in pins
