"""Dagger's API as GraphQL schema: all that the Python clients ask for, in `dagger.graphql`.

    schema = load()                     # a fresh one: set resolvers on its fields

`loading.py` makes the schema object, `introspection.py` answers what the clients ask about it,
`generate.py` writes the file. GraphQL is loaded with the first schema, not before: a client can
connect to kept answers without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphql import GraphQLSchema


def load() -> GraphQLSchema:
    """See `loading.load`."""
    from buildonce.engine.schema import loading

    return loading.load()
