"""Which registries a project needs, and telling one from whatever else answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildonce.toolchain.network import configured_images, is_registry, registry_hosts


def test_hosts_of_references() -> None:
    assert registry_hosts(
        [
            "python:3.12",
            "library/python:3.12",
            "registry.test:5000/python",
            "registry.test:5000/other@sha256:00",
            "127.0.0.1:5080/base/python:bookworm",
            "localhost/base",
            "images.test/python",
        ]
    ) == ["docker.io", "registry.test:5000", "images.test"]


def test_only_the_public_images_count(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(
        '[images]\npython = "images.test/python:3"\n'
        '[profiles.offline.images]\npython = "127.0.0.1:5080/base"\n',
        "utf-8",
    )
    assert configured_images(file) == ["images.test/python:3"]
    file.write_text("[images", "utf-8")
    assert configured_images(file) == []
    assert configured_images(tmp_path / "none.toml") == []


@pytest.mark.anyio
async def test_a_name_that_no_network_knows_is_no_registry() -> None:
    assert not await is_registry("registry.invalid")
