"""What is this machine and what only looks like it."""

from __future__ import annotations

import pytest

from buildonce.loopback import is_loopback


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.0.1:5080", "localhost", "localhost:5080", "LOCALHOST:1", "[::1]:5080"],
)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert is_loopback(f"http://{host}/path")


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        "10.0.0.1:5080",
        "127.0.0.1.example",
        "localhost.example:80",
        "127.0.0.1@registry.example",
        "[::1",
        "",
    ],
)
def test_another_one(host: str) -> None:
    assert not is_loopback(host)
    assert not is_loopback(f"http://{host}/path")
