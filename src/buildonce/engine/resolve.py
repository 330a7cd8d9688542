"""GraphQL over the operations: queries in, recipes and values out.

A field that makes an object only notes down a recipe. Work begins at the leaves: a value, an `id`
(which makes sure that what it names exists) or a `sync`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import uuid4

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    execute,
    get_named_type,
    specified_rules,
    validate,
)
from graphql.validation import OverlappingFieldsCanBeMergedRule

from buildonce.engine import chains, operations
from buildonce.engine.engine import Engine
from buildonce.engine.errors import NotServed
from buildonce.engine.recipe import Recipe

ROOT = Recipe("Query", "", None, {})
# That rule compares every two fields; a client's query is one long chain of single ones.
_CHANGING = {"EngineCache.entrySet"}  # what is another thing each time it is asked for
_PLANS = 256  # queries whose plan is kept: programs ask for the same again
_RULES = [rule for rule in specified_rules if rule is not OverlappingFieldsCanBeMergedRule]

Plan: TypeAlias = tuple[chains.Step, ...] | None


class Resolver:
    """Answers queries of one session."""

    def __init__(self, engine: Engine, schema: GraphQLSchema) -> None:
        self._engine = engine
        self._schema = schema
        self._plans: OrderedDict[int, tuple[DocumentNode, Plan]] = OrderedDict()

    async def execute(
        self,
        document: DocumentNode,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        context: Any,
    ) -> ExecutionResult:
        """Run a parsed query; what is wrong with it is in the result's errors."""
        steps = None if variables else self._plan(document, operation_name)
        if steps is not None:
            return await chains.answer(steps, ROOT, self._ask)
        mistakes = validate(self._schema, document, _RULES)
        if mistakes:
            return ExecutionResult(None, mistakes)
        answer = execute(
            self._schema,
            document,
            root_value=ROOT,
            context_value=context,
            variable_values=dict(variables or {}),
            operation_name=operation_name,
            field_resolver=self._resolve,
            type_resolver=lambda value, info, kind: value.type,
        )
        return answer if isinstance(answer, ExecutionResult) else await answer

    def _plan(self, document: DocumentNode, operation_name: str | None) -> Plan:
        # By identity: a document's hash is that of all it holds.
        key = id(document)
        known = self._plans.get(key)
        if known is None or operation_name:
            known = document, chains.plan(self._schema, document, operation_name)
            self._plans[key] = known
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return known[1]

    async def _ask(self, source: Recipe, step: chains.Step) -> Any:
        return await self._field(source, step.parent.name, step.name, step.field, step.args)

    async def _resolve(self, source: Recipe, info: GraphQLResolveInfo[Any], /, **args: Any) -> Any:
        parent, name = info.parent_type, info.field_name
        return await self._field(source, parent.name, name, parent.fields[name], args)

    async def _field(
        self, source: Recipe, parent: str, name: str, field: GraphQLField, args: Mapping[str, Any]
    ) -> Any:
        engine = self._engine
        if name == "id":
            await engine.lower(source)
            return engine.recipes.remember(source)
        kind = get_named_type(field.type)
        if parent == "Query" and (name == "node" or name.startswith("load")):
            wanted = None if name == "node" else kind.name
            return engine.recipes.find(str(args["id"]), type=wanted)
        coordinate = f"{parent}.{name}"
        function = operations.find(coordinate)
        if function is None:
            raise NotServed(coordinate)
        kinds = operations.kinds(function)
        values = {
            key: self._value(value, field.args[key].type, kinds.get(operations.snake_case(key)))
            for key, value in args.items()
            if value is not None
        }
        returned = _unwrapped(field.type)
        if isinstance(returned, GraphQLList):
            return await self._list(source, name, kind, function, values)
        if coordinate == "Query.setSecret":
            return await self._secret(values)
        if isinstance(kind, GraphQLObjectType):
            each_time = values.get("noCache") or coordinate in _CHANGING
            recipe = Recipe(kind.name, name, source, values, uuid4().hex if each_time else "")
            if isinstance(field.type, GraphQLNonNull) or await engine.lower(recipe) is not None:
                return recipe
            return None
        answer = await engine.call(function, source, values)
        if kind.name == "ID":  # `sync`, `start`, `stop`: the object itself
            return engine.recipes.remember(source)
        return answer

    async def _secret(self, values: dict[str, Any]) -> Recipe:
        # The value must not get into a recipe: a digest of it could be guessed at.
        state = self._engine.secrets.put(values["name"], values["plaintext"])
        recipe = Recipe("Secret", "setSecret", ROOT, {"identity": state.identity})
        return self._engine.adopt(recipe, state)

    async def _list(
        self, source: Recipe, name: str, kind: Any, function: Any, values: dict[str, Any]
    ) -> list[Any]:
        answer = await self._engine.call(function, source, values)
        if not isinstance(kind, GraphQLObjectType):
            return list(answer)
        whole = Recipe(f"[{kind.name}]", name, source, values)
        return [
            self._engine.adopt(Recipe(kind.name, str(number), whole, {}), item)
            for number, item in enumerate(answer)
        ]

    def _value(self, value: Any, kind: Any, wanted: str | None) -> Any:
        """An argument with the IDs in it replaced by the recipes they stand for, which are of
        type `wanted`."""
        kind = _unwrapped(kind)
        if isinstance(kind, GraphQLList):
            items = value if isinstance(value, list) else [value]
            return [self._value(item, kind.of_type, wanted) for item in items]
        if isinstance(kind, GraphQLInputObjectType):
            return dict(value)
        if kind.name == "ID":
            return self._engine.recipes.find(str(value), type=wanted)
        return value


def _unwrapped(kind: Any) -> Any:
    return kind.of_type if isinstance(kind, GraphQLNonNull) else kind
