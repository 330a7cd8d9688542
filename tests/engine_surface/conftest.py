"""A session server whose executor answers with the recipe it was asked for; nothing is run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    ExecutionResult,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    execute,
    get_named_type,
    is_leaf_type,
    validate,
)

from buildonce.engine.errors import ExecFailed
from buildonce.engine.host import listen
from buildonce.engine.schema import load
from buildonce.engine.server import QueryContext, Server


@dataclass
class FakeNode:
    type: str
    field: str
    parent: FakeNode | None = None
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def chain(self) -> list[FakeNode]:
        nodes: list[FakeNode] = []
        node: FakeNode | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def id(self) -> str:
        recipe = [(node.field, node.args) for node in self.chain]
        text = json.dumps(recipe, sort_keys=True, default=str)
        return f"{self.type}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


class FakeEngine:
    """Resolvers for every field of the schema. Some are special:

    - `withExec(["fail", …])` fails as a command does, `["crash"]` as a bug does;
    - `withExec(["sleep"])` never ends.
    """

    def __init__(self) -> None:
        self.schema = load()
        self.objects: dict[str, FakeNode] = {}
        self.contexts: list[QueryContext] = []
        self.cancelled = 0
        for type_ in self.schema.type_map.values():
            if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
                for name, definition in type_.fields.items():
                    definition.resolve = self._resolver(type_.name, name, definition.type)
            elif hasattr(type_, "resolve_type") and type_.name in ("Node", "Syncer", "Exportable"):
                type_.resolve_type = lambda node, info, _: node.type

    def _resolver(self, owner: str, name: str, type_: Any) -> Callable[..., Any]:
        named = get_named_type(type_)
        nullable = not isinstance(type_, GraphQLNonNull)
        is_list = isinstance(type_.of_type if not nullable else type_, GraphQLList)

        async def resolve(node: FakeNode | None, info: Any, **args: Any) -> Any:
            await asyncio.sleep(0)
            if name == "id":
                return self._remember(node or FakeNode("Query", "query"))
            if name == "node" or (name.startswith("load") and name.endswith("FromID")):
                if args["id"] not in self.objects:
                    raise ValueError("unknown id")
                return self.objects[args["id"]]
            if not is_leaf_type(named):
                made = FakeNode(named.name, name, node, args)
                return [made] if is_list else made
            await self._run(node)
            if named.name == "ID":
                return self._remember(node)
            return self._leaf(named, node, is_list)

        return resolve

    def _remember(self, node: FakeNode | None) -> str:
        assert node is not None
        self.objects[node.id] = node
        return node.id

    async def _run(self, node: FakeNode | None) -> None:
        for step in node.chain if node else []:
            command = step.args.get("args") or [""]
            if step.field == "withExec" and command[0] == "fail":
                raise ExecFailed(command, 3, "some output", "some complaint")
            if step.field == "withExec" and command[0] == "crash":
                raise ZeroDivisionError("token=hunter2 in a bug's message")
            if step.field == "withExec" and command[0] == "sleep":
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise

    @staticmethod
    def _leaf(named: Any, node: FakeNode | None, is_list: bool) -> Any:
        values: dict[str, Any] = {"Int": 7, "WideInt": 2**40, "Boolean": True, "Float": 0.5}
        if hasattr(named, "values"):
            value = next(iter(named.values.values())).value
        else:
            recipe = [(step.field, step.args) for step in (node.chain if node else [])]
            value = values.get(named.name, json.dumps(recipe, default=str))
        return [value] if is_list else value

    async def execute(
        self,
        document: Any,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: QueryContext,
    ) -> ExecutionResult:
        self.contexts.append(context)
        errors = validate(self.schema, document)
        if errors:
            return ExecutionResult(None, errors)
        result = execute(
            self.schema, document, variable_values=variables, operation_name=operation_name
        )
        return await result if not isinstance(result, ExecutionResult) else result


@dataclass
class Running:
    server: Server
    engine: FakeEngine
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/query"


@contextlib.asynccontextmanager
async def run_server(cache: Path | None = None, **options: Any) -> AsyncIterator[Running]:
    engine = FakeEngine()
    token = "the-session-token"
    server = Server(token, engine.execute, introspection=cache, **options)
    listener = listen()
    port = listener.getsockname()[1]
    async with server.serving(listener):
        yield Running(server, engine, port, token)


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractAsyncContextManager[Running]]:
    return run_server
