"""Dagger's API as GraphQL schema: all that the Python clients ask for, in `dagger.graphql`.

`load.py` makes the schema object, `introspection.py` answers what the clients ask about it,
`generate.py` writes the file. Nothing is imported here: a server whose answers are kept already
never loads GraphQL's schema machinery before its first query.
"""
