"""What each field of the API does: one function a field, one module an area.

    @operation("Container.withLabel")
    def with_label(engine: Engine, self: ContainerState, name: str, value: str) -> ContainerState:
        return with_image(self, labels=put(self.image.labels, name, value))

A function takes the engine, the state of the object it is asked of, and the field's arguments by
their names in snake case; arguments that were IDs are states already. One that makes an object is
a plain function when it has only to describe what is to be done, and nearly all have. One that
answers with a value is a coroutine function that asks the engine to do it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from inspect import isclass
from keyword import iskeyword
from typing import Any, TypeVar, get_args, get_type_hints

_OPERATIONS: dict[str, Callable[..., Any]] = {}
_AREAS = (
    "query",
    "container",
    "container_files",
    "mounts",
    "execs",
    "directory",
    "directory_questions",
    "found",
    "file",
    "host",
    "publish",
    "service",
    "git",
    "http",
    "changesets",
    "environment_files",
    "json_values",
    "error_values",
    "health",
    "addresses",
    "image_store",
    "local_cache",
)
_NAMES = {
    "CacheState": "CacheVolume",
    "RepositoryState": "GitRepository",
    "RefState": "GitRef",
}
F = TypeVar("F", bound=Callable[..., Any])


def operation(*coordinates: str) -> Callable[[F], F]:
    """Register a function for fields, each named `Type.field`."""

    def register(function: F) -> F:
        for coordinate in coordinates:
            if coordinate in _OPERATIONS:
                raise ValueError(f"{coordinate} has two operations")
            _OPERATIONS[coordinate] = function
        return function

    return register


def find(coordinate: str) -> Callable[..., Any] | None:
    """The function for `Type.field`; None where the engine does not serve it."""
    if not _OPERATIONS:
        for area in _AREAS:
            import_module(f"{__name__}.{area}")
    return _OPERATIONS.get(coordinate)


@cache
def kinds(function: Callable[..., Any]) -> Mapping[str, str]:
    """By parameter: the type of object that it takes, by the API's name; also of a list of them."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(function).items():
        for one in (hint, *get_args(hint)):
            if isclass(one) and one.__name__.endswith("State"):
                found[name] = _NAMES.get(one.__name__, one.__name__.removesuffix("State"))
    return found


@cache
def snake_case(name: str) -> str:
    """`insecureRootCapabilities` as `insecure_root_capabilities`; `from`, which is Python's, as
    `from_`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{snake}_" if iskeyword(snake) else snake
