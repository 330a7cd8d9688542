"""Queries that are one chain of fields, which is what clients write, answered without a walk by
graphql-core: it visits a query of 50 fields some ten thousand times to check and answer it.

    steps = plan(schema, document, None)        # None: not that simple, ask graphql-core
    result = await answer(steps, ask)

What is wrong with a query is told by graphql-core alone: whatever looks odd is no plan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    is_leaf_type,
)
from graphql.error import located_error
from graphql.execution.values import get_argument_values


@dataclass(frozen=True, slots=True)
class Step:
    """One field of a chain.

    Attributes:
        key: its name in the answer.
        args: by the API's names, as their types have them, defaults filled in.
        only: the type of object that the rest of the chain is about, where the field itself may
            answer with several (`node(id:) {… on Container {…}}`).
    """

    parent: GraphQLObjectType
    name: str
    field: GraphQLField
    key: str
    args: dict[str, Any]
    node: FieldNode
    only: str = ""


Ask = Callable[[Any, Step], Awaitable[Any]]


def plan(
    schema: GraphQLSchema, document: DocumentNode, operation_name: str | None
) -> tuple[Step, ...] | None:
    """The chain that the document is, checked against the schema; None if it is none."""
    selection = _only_query(document, operation_name)
    parent = schema.query_type
    steps: list[Step] = []
    while selection is not None and parent is not None:
        if len(selection.selections) != 1:
            return None
        node = selection.selections[0]
        if not isinstance(node, FieldNode) or node.directives:
            return None
        step = _step(parent, node)
        if step is None:
            return None
        selection = node.selection_set
        kind = get_named_type(step.field.type)
        if is_leaf_type(kind):
            return (*steps, step) if selection is None else None
        # Lists of objects need more than following one.
        alone = step.field.type
        alone = alone.of_type if isinstance(alone, GraphQLNonNull) else alone
        parent = alone if isinstance(alone, GraphQLObjectType) else None
        if isinstance(alone, GraphQLInterfaceType):
            parent, selection = _narrowed(schema, alone, selection)
            step = replace(step, only=parent.name if parent else "")
        steps.append(step)
    return None


def _narrowed(
    schema: GraphQLSchema, kind: GraphQLInterfaceType, selection: SelectionSetNode | None
) -> tuple[GraphQLObjectType | None, SelectionSetNode | None]:
    """The one type that a selection is about, and what is asked of it."""
    if selection is None or len(selection.selections) != 1:
        return None, None
    fragment = selection.selections[0]
    if not isinstance(fragment, InlineFragmentNode) or fragment.directives:
        return None, None
    condition = fragment.type_condition
    found = schema.type_map.get(condition.name.value) if condition else None
    if not isinstance(found, GraphQLObjectType) or not schema.is_sub_type(kind, found):
        return None, None
    return found, fragment.selection_set


def _only_query(document: DocumentNode, operation_name: str | None) -> SelectionSetNode | None:
    if len(document.definitions) != 1:
        return None
    operation = document.definitions[0]
    if (
        not isinstance(operation, OperationDefinitionNode)
        or operation.operation is not OperationType.QUERY
        or operation.variable_definitions
        or operation.directives
    ):
        return None
    name = operation.name.value if operation.name else None
    return operation.selection_set if operation_name in (None, "", name) else None


def _step(parent: GraphQLObjectType, node: FieldNode) -> Step | None:
    name = node.name.value
    field = parent.fields.get(name)
    if field is None:
        return None
    given = [argument.name.value for argument in node.arguments or ()]
    if len(set(given)) != len(given) or not field.args.keys() >= set(given):
        return None
    try:
        args = get_argument_values(field, node)
    except GraphQLError:
        return None
    return Step(parent, name, field, (node.alias or node.name).value, args, node)


async def answer(steps: Sequence[Step], root: Any, ask: Ask) -> ExecutionResult:
    """Ask for one field after the other; what goes wrong is in the result's errors."""
    value = root
    done = 0
    try:
        for step in steps:
            done += 1
            value = await ask(value, step)
            if value is None:  # an object that there may be, or not
                break
            if step.only and value.type != step.only:  # then nothing is asked of it
                return _result(steps[:done], {})
        data = _leaf(steps[done - 1].field.type, value)
    except Exception as error:
        path = [step.key for step in steps[:done]]
        return ExecutionResult(None, [located_error(error, [steps[done - 1].node], path)])
    return _result(steps[:done], data)


def _result(steps: Sequence[Step], data: Any) -> ExecutionResult:
    for step in reversed(steps):
        data = {step.key: data}
    return ExecutionResult(data, None)


def _leaf(kind: Any, value: Any) -> Any:
    """A value as the answer has it."""
    if isinstance(kind, GraphQLNonNull):
        answer = _leaf(kind.of_type, value)
        if answer is None:
            raise TypeError("there is no value where there must be one")
        return answer
    if value is None:
        return None
    if isinstance(kind, GraphQLList):
        return [_leaf(kind.of_type, item) for item in value]
    return kind.serialize(value)
