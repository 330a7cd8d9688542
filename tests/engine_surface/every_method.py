"""Calls every method of the `dagger-io` that is importable, against the schema we serve.

A program, not a test: it runs in a process of its own, with one version of the client or another.
The client builds each query itself, from the schema as introspection describes it, and the server's
rules validate it. Prints how many queries were built; each mistake is a line on standard error.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import json
import re
import sys
import types
import typing
from typing import Any

import dagger.client._core as core
import dagger.client.gen as gen
import typing_extensions
from dagger.client.base import Enum, Input, Scalar, Type
from graphql import build_client_schema, get_introspection_query, validate

from buildonce.engine.schema import load
from buildonce.engine.schema.introspection import KeptAnswers

SCHEMA = load()
ANSWER = json.loads(KeptAnswers(None).compute(get_introspection_query(), None))
CLIENT_SCHEMA = build_client_schema(ANSWER["data"])
built: list[str] = []
mistakes: list[str] = []
under_way = ""


class FakeConnection:
    class session:
        @staticmethod
        async def get_schema() -> Any:
            return CLIENT_SCHEMA


async def execute(self: core.Context, return_type: Any = None) -> Any:
    """In the place of the client's own: build and validate the query, send nothing."""
    await self.resolve_ids()
    document = (await self.request()).document
    errors = validate(SCHEMA, document)
    if errors:
        mistakes.append(f"{under_way}: {errors[0].message}")
    else:
        built.append(under_way)
    if return_type is None or typing.get_origin(return_type) is list:
        return None if return_type is None else []
    return samples(return_type)[0]


def samples(hint: Any, cls: Any = None) -> list[Any]:
    """Values of a parameter's type: all members of an enum, one of anything else."""
    if forward := re.search(r"name='(\w+)'", repr(hint)):  # as beartype has them
        hint = getattr(gen, forward[1])
    if hint is typing.Self or hint is typing_extensions.Self:
        hint = cls
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [value for arg in args if arg is not type(None) for value in samples(arg, cls)]
    if origin is list:
        return [samples(args[0], cls)]
    if hint in (str, int, bool, float):
        return [{str: 'a\n"b" \\ ü', int: 420, bool: True, float: 0.5}[hint]]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint.__members__.values())
    if isinstance(hint, type) and issubclass(hint, Input):
        hints = typing.get_type_hints(hint)
        return [hint(**{name: samples(kind)[0] for name, kind in hints.items()})]
    if isinstance(hint, type) and issubclass(hint, Scalar):
        return [hint("an-id")]
    if isinstance(hint, type) and issubclass(hint, Type):
        return [make(hint)]
    client = getattr(gen, f"_{getattr(hint, '__name__', '')}Client", None)
    if client:  # an interface: any object that has it
        return [make(gen.Directory)]
    raise NotImplementedError(hint)


def make(cls: Any) -> Any:
    """An object of the client, as if loaded by its ID."""
    name = cls._graphql_name() if hasattr(cls, "_graphql_name") else cls.__name__
    root = core.Context(FakeConnection())  # type: ignore[arg-type]
    return cls(root if name in ("Query", "Client") else root.select_id(name, "an-id"))


async def call(cls: Any, name: str, arguments: dict[str, Any]) -> None:
    global under_way
    shown = {key: value for key, value in arguments.items() if not isinstance(value, Type)}
    under_way = f"{cls.__name__}.{name}({shown})"
    before = len(built)
    try:
        answer = getattr(make(cls), name)(**arguments)
        if inspect.isawaitable(answer) and not isinstance(answer, Type):
            await answer
        elif isinstance(answer, Type):
            # A lazy field becomes a query when something of it is asked for.
            await answer._select("id", []).execute(str)
    except Exception as error:
        if type(error).__name__ == "BeartypeCallHintReturnViolation" and len(built) > before:
            return  # `export_image` of the client promises a value and returns none
        mistakes.append(f"{under_way}: {type(error).__name__}: {error}")


async def main() -> int:
    core.Context.execute = execute  # type: ignore[method-assign]
    # Each object would make one for the answers, which there are none of: half of the time.
    converter = core.make_converter(core.Context(FakeConnection()))  # type: ignore[arg-type]
    core.make_converter = lambda _: converter  # type: ignore[attr-defined]
    classes = [
        cls
        for cls in vars(gen).values()
        if isinstance(cls, type)
        and issubclass(cls, Type)
        and cls.__module__ in ("dagger", gen.__name__)
    ]
    for cls in classes:
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            if name.startswith("_") or name == "with_":
                continue
            method = inspect.unwrap(method)
            hints = typing.get_type_hints(method, vars(gen))
            parameters = {
                parameter: samples(hints[parameter], cls)
                for parameter in list(inspect.signature(method).parameters)[1:]
            }
            await call(cls, name, {key: values[0] for key, values in parameters.items()})
            for key, values in parameters.items():
                for value in values[1:]:
                    others = {k: v[0] for k, v in parameters.items() if k != key}
                    await call(cls, name, {**others, key: value})
    for line in mistakes:
        print(line, file=sys.stderr)
    print(len(built))
    return 1 if mistakes else 0


if __name__ == "__main__":
    import logging
    import warnings

    logging.disable()
    warnings.simplefilter("ignore")
    assert issubclass(gen.CacheSharingMode, Enum)
    sys.exit(asyncio.run(main()))
