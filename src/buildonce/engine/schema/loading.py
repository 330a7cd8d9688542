"""The schema as an object, for resolvers to be set on.

    schema = load()                                  # a fresh one
    schema.type_map["Container"].fields["stdout"].resolve = ...

Enums reach resolvers as the value they stand for: `GZIP` and `Gzip` are both "Gzip".
"""

from __future__ import annotations

from typing import Any

from graphql import (
    EnumTypeDefinitionNode,
    EnumValueDefinitionNode,
    GraphQLEnumType,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    StringValueNode,
    build_ast_schema,
    parse,
)

from buildonce.engine.schema.text import sdl


def load() -> GraphQLSchema:
    """A new schema object without resolvers (60 ms).

    Where Dagger answers with integers beyond 32 bits (sizes of files), so may resolvers.
    """
    document = parse(sdl(), no_location=True)
    schema = build_ast_schema(document, assume_valid=True, assume_valid_sdl=True)
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLEnumType):
            _apply_aliases(type_)
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for field in type_.fields.values():
                field.type = _wide(field.type)
    return schema


def _apply_aliases(enum: GraphQLEnumType) -> None:
    node = enum.ast_node
    if not isinstance(node, EnumTypeDefinitionNode):
        return  # GraphQL's own, such as __TypeKind
    for value in node.values or ():
        name = value.name.value
        enum.values[name].value = _alias_of(value) or name
    # An answer's name is the first one that stands for the value: the SDL lists aliases last.


def _alias_of(value: EnumValueDefinitionNode) -> str | None:
    for directive in value.directives or ():
        for argument in directive.arguments or ():
            if directive.name.value == "alias" and isinstance(argument.value, StringValueNode):
                return argument.value.value
    return None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise TypeError(f"not an integer: {value!r}")
    return int(value)


_WIDE_INT = GraphQLScalarType("WideInt", serialize=_whole)


def _wide(type_: Any) -> Any:
    if isinstance(type_, GraphQLNonNull):
        return GraphQLNonNull(_wide(type_.of_type))
    return _WIDE_INT if type_ is GraphQLInt else type_
