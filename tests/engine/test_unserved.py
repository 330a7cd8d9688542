"""What the embedded engine leaves out of Dagger's API: each field says so itself."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)

from buildonce.engine import operations
from buildonce.engine.schema import load
from tests.engine.test_sessions import Session, identifier, session, started

__all__ = ["session", "started"]
pytestmark = [pytest.mark.anyio, pytest.mark.embedded_only]

SCHEMA = load()
OBJECTS = {
    name: kind
    for name, kind in SCHEMA.type_map.items()
    if isinstance(kind, GraphQLObjectType) and not name.startswith("__")
}
EMPTY_GIT = 'git(url: "https://127.0.0.1:1/x.git")'
# How a question gets at an object of each kind.
WAYS = {
    "Query": [],
    "Container": ["container"],
    "Directory": ["directory"],
    "File": ['file(name: "n", contents: "c")'],
    "Host": ["host"],
    "Secret": ['setSecret(name: "a", plaintext: "b")'],
    "CacheVolume": ['cacheVolume(key: "k")'],
    "Service": ["container", 'withDefaultArgs(args: ["x"])', "asService"],
    "GitRepository": [EMPTY_GIT],
    "GitRef": [EMPTY_GIT, "head"],
    "EnvVariable": ["container", 'withEnvVariable(name: "A", value: "1")', "envVariables"],
    "Label": ["container", 'withLabel(name: "A", value: "1")', "labels"],
    "Port": ["container", "withExposedPort(port: 80)", "exposedPorts"],
    "Address": ['address(value: "x")'],
}
# Kinds of which all fields are served.
WHOLLY_SERVED = {
    "Changeset",
    "DiffStat",
    "Engine",
    "EngineCache",
    "EngineCacheEntry",
    "EngineCacheEntrySet",
    "EnvFile",
    "Error",
    "ErrorValue",
    "HealthcheckConfig",
    "JSONValue",
    "SearchResult",
    "SearchSubmatch",
    "Socket",
    "Stat",
}


def served(kind: str, name: str) -> bool:
    if name == "id" or (kind == "Query" and (name == "node" or name.startswith("load"))):
        return True
    return operations.find(f"{kind}.{name}") is not None


def value(kind: Any, directory: str) -> str:
    """Some value of an argument's type, in GraphQL."""
    if isinstance(kind, GraphQLNonNull):
        return value(kind.of_type, directory)
    if isinstance(kind, GraphQLList):
        return "[]"
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        required = {
            name: field
            for name, field in kind.fields.items()
            if isinstance(field.type, GraphQLNonNull)
        }
        inner = (f"{name}: {value(field.type, directory)}" for name, field in required.items())
        return "{" + ", ".join(inner) + "}"
    known = {"Int": "1", "Boolean": "true", "Float": "1.0", "ID": f'"{directory}"'}
    return known.get(kind.name, '"x"')


def question(kind: str, name: str, field: GraphQLField, directory: str) -> str:
    required = {
        argument: given
        for argument, given in field.args.items()
        if isinstance(given.type, GraphQLNonNull)
    }
    given = ", ".join(f"{a}: {value(g.type, directory)}" for a, g in required.items())
    leaf = f"{name}({given})" if given else name
    if isinstance(get_named_type(field.type), GraphQLObjectType):
        leaf += " {__typename}"
    for step in reversed(WAYS[kind]):
        leaf = f"{step} {{{leaf}}}"
    return f"{{{leaf}}}"


def test_every_kind_of_object_that_can_be_had_is_in_this_test() -> None:
    reached, pending = {"Query"}, ["Query"]
    while pending:
        kind = pending.pop()
        for name, field in OBJECTS[kind].fields.items():
            found = get_named_type(field.type).name
            if found in OBJECTS and found not in reached and served(kind, name):
                if name.startswith("load"):
                    continue  # of an ID, which one has to have first
                reached.add(found)
                pending.append(found)
    assert reached <= WAYS.keys() | WHOLLY_SERVED
    for kind in WHOLLY_SERVED:
        assert all(served(kind, name) for name in OBJECTS[kind].fields)


@pytest.mark.parametrize("kind", WAYS)
async def test_every_field_that_is_left_out_says_so(session: Session, kind: str) -> None:
    directory = identifier(await session.ask("{directory {id}}"))
    for name, field in OBJECTS[kind].fields.items():
        if served(kind, name):
            continue
        error = await session.error(question(kind, name, field, directory))
        assert f"{kind}.{name}" in error["message"]
        assert "not served by buildonce's embedded engine" in error["message"]
        assert "dagger run" in error["message"]
        assert error["extensions"] == {"_type": "NOT_SERVED", "field": f"{kind}.{name}"}


def test_every_field_that_is_served_takes_all_its_arguments() -> None:
    for kind, shape in OBJECTS.items():
        for name, field in shape.fields.items():
            function = operations.find(f"{kind}.{name}")
            if function is None:
                continue
            parameters = inspect.signature(function).parameters.values()
            if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
                continue
            names = {p.name for p in parameters}
            missing = {a for a in field.args if operations.snake_case(a) not in names}
            assert not missing, f"{kind}.{name} does not take {missing}"


def test_every_operation_is_of_a_field() -> None:
    operations.find("Query.version")  # all are loaded
    for coordinate in operations._OPERATIONS:
        kind, _, name = coordinate.partition(".")
        assert name in OBJECTS[kind].fields, coordinate


async def test_a_part_of_a_field_that_is_left_out(session: Session) -> None:
    for argument in ("experimentalPrivilegedNesting: true",):
        query = f'{{container {{withExec(args: ["x"], {argument}) {{id}}}}}}'
        error = await session.error(query)
        assert "experimentalPrivilegedNesting" in error["message"]
        assert error["extensions"]["_type"] == "NOT_SERVED"
    error = await session.error('{secret(uri: "vault://x") {id}}')
    assert "vault" in error["message"]


async def test_terminals_are_refused(session: Session) -> None:
    error = await session.error("{container {terminal {id}}}")
    assert "terminal" in error["message"]
    assert "dagger run" in error["message"]
