"""What a query may cost, checked before any of it is answered.

    document = parse_bounded("{container{from(address:\\"alpine\\"){id}}}")

A chain of calls in a client's program is one nested query, so depth is generous; what is bounded is
everything that lets few bytes ask for much: nesting, fragments spread again and again, aliases.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
)
from graphql.language import parser

MAX_BYTES = 64 << 20  # files given as text travel inside queries
MAX_DEPTH = 2_000
MAX_TOKENS = 200_000
MAX_FIELDS = 10_000  # with every fragment spread out
MAX_SPREADS = 200  # clients write none; comparing them with each other is quadratic
MAX_EQUAL = 50  # fields that answer under one name, side by side: compared with each other too

# graphql-core descends with about six calls a level; Python's own limit of 1000 would end at 160.
# These are calls from Python to Python, which do not use the C stack.
_CALLS_A_LEVEL = 12
_RECURSION_LIMIT = MAX_DEPTH * _CALLS_A_LEVEL + 1_000

# A string without its end is taken to the end of its line: looking for it again from every quote
# would be quadratic.
_NESTING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:""")?'
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
    r"|#[^\n]*|[{(\[]|[})\]]",
    re.DOTALL,
)


class QueryRejected(GraphQLError):
    """A query that is not going to be answered, whatever it asks."""


def prepare() -> None:
    """Let this process handle queries as deep as are allowed; once, before the first query."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_LIMIT))
    # graphql-core 3.3 has a limit of its own, 200 levels, and no argument to change it.
    if hasattr(parser, "MAX_NESTING_DEPTH"):
        parser.MAX_NESTING_DEPTH = MAX_DEPTH


def parse_bounded(query: str) -> DocumentNode:
    """Parse a query that is within the limits.

    Raises:
        QueryRejected: it is not, and the message says which limit.
        GraphQLSyntaxError: it is no GraphQL.
    """
    if _depth(query) > MAX_DEPTH:
        raise QueryRejected(
            f"the query is nested more than {MAX_DEPTH} levels deep; "
            "await a part of the chain (for example with sync) to shorten it"
        )
    document = parse(query, no_location=False, max_tokens=MAX_TOKENS)
    count_fields(document)
    return document


def _depth(query: str) -> int:
    depth = deepest = 0
    for found in _NESTING.finditer(query):
        match found.group():
            case "{" | "(" | "[":
                depth += 1
                deepest = max(deepest, depth)
            case "}" | ")" | "]":
                depth -= 1
    return deepest


def count_fields(document: DocumentNode) -> int:
    """How many fields the document selects, with every fragment spread out.

    Raises:
        QueryRejected: too many, or fragments that contain themselves.
    """
    counter = _Counter(document)
    # Fragments that no operation uses are counted as well: validating looks at them too.
    total = sum(counter.of_fragment(name) for name in counter.fragments)
    for operation in _operations(document):
        total += counter.of_set(operation.selection_set)
        if total > MAX_FIELDS:
            raise QueryRejected(f"the query selects more than {MAX_FIELDS} fields")
    return total


class _Counter:
    def __init__(self, document: DocumentNode) -> None:
        self.fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, int] = {}
        self._under_way: set[str] = set()
        self._spreads = 0

    def of_fragment(self, name: str) -> int:
        if name in self._under_way:
            raise QueryRejected(f"the fragment {name} contains itself")
        if name not in self._known:
            fragment = self.fragments.get(name)
            self._under_way.add(name)
            self._known[name] = self.of_set(fragment.selection_set) if fragment else 0
            self._under_way.remove(name)
        return self._known[name]

    def of_set(self, root: SelectionSetNode) -> int:
        count = 0
        pending = [root]
        while pending:
            equal: Counter[str] = Counter()
            for selection in pending.pop().selections:
                if isinstance(selection, FragmentSpreadNode):
                    self._spreads += 1
                    count += self.of_fragment(selection.name.value)
                elif isinstance(selection, FieldNode | InlineFragmentNode):
                    if isinstance(selection, FieldNode):
                        count += 1
                        equal[(selection.alias or selection.name).value] += 1
                    else:
                        equal["..."] += 1
                    if selection.selection_set:
                        pending.append(selection.selection_set)
                if count > MAX_FIELDS:
                    raise QueryRejected(f"the query selects more than {MAX_FIELDS} fields")
                if self._spreads > MAX_SPREADS:
                    raise QueryRejected(f"the query spreads more than {MAX_SPREADS} fragments")
            if equal and max(equal.values()) > MAX_EQUAL:
                raise QueryRejected(
                    f"the query asks for more than {MAX_EQUAL} fields under one name, side by side"
                )
        return count


def _operations(document: DocumentNode) -> Iterable[OperationDefinitionNode]:
    return (node for node in document.definitions if isinstance(node, OperationDefinitionNode))


def asks_for_schema(document: DocumentNode) -> bool:
    """Whether the document is introspection and nothing else.

    Raises:
        QueryRejected: it mixes introspection with other fields.
    """
    names = {
        selection.name.value
        for operation in _operations(document)
        for selection in operation.selection_set.selections
        if isinstance(selection, FieldNode)
    }
    about_schema = names & {"__schema", "__type"}
    if about_schema and names - {"__schema", "__type", "__typename"}:
        raise QueryRejected("ask for the schema (__schema, __type) in a query of its own")
    return bool(about_schema)
