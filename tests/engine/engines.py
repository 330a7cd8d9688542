"""Which engine the suite runs on, and what it needs to say about either.

    assert await thing() == on(dagger="", embedded="0:0")

Every such difference is told in docs/engine-differences.md.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import TypeVar
from uuid import uuid4

import dagger

ENGINE = os.environ.get("BUILDONCE_TEST_ENGINE", "embedded")
UUID = ["cat", "/proc/sys/kernel/random/uuid"]  # the same output twice: the second was cached
T = TypeVar("T")


def on(*, dagger: T, embedded: T) -> T:
    """What is expected of the engine under test where the two differ on purpose."""
    return embedded if ENGINE == "embedded" else dagger


def sh(script: str) -> list[str]:
    """A shell script as a command."""
    return ["sh", "-c", script]


def unique(prefix: str = "") -> str:
    """A string that no run has used before, for what must not be in any cache."""
    return f"{prefix}{uuid4().hex[:12]}"


async def failure(question: Awaitable[object]) -> dagger.QueryError:
    """The error that a question ends with."""
    try:
        answer = await question
    except dagger.QueryError as error:
        return error
    raise AssertionError(f"no error but {answer!r}")


def get(address: str, path: str = "/") -> list[str]:
    """A command that prints the body of an answer over HTTP."""
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return sh(f"printf '{request}' | shim connect {address} 2>/dev/null | sed '1,/^\\r*$/d'")


def fresh(container: dagger.Container) -> dagger.Container:
    """The container with nothing of what it runs answered from the cache."""
    return container.with_env_variable("FRESH", unique())
