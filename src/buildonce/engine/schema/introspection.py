"""Answers to introspection, computed once and kept as bytes.

A client asks for the whole schema each time it connects. The answer depends on nothing but the
schema and the question, so it is kept in a file named by both; a later process serves the file
without even loading GraphQL.

    kept = KeptAnswers(places.cache() / "introspection")
    body = kept.find(query)                   # None: not asked before
    body = body or kept.compute(query, None)  # 0.2 s
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from buildonce.engine.schema.text import digest

_LONGEST_KEPT = 16 << 10  # characters of a question; clients ask in 2 thousand
_MOST_KEPT = 50


class KeptAnswers:
    """The answers in one folder. None: keep them in memory only."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    def find(self, query: str) -> bytes | None:
        """The answer to a question that was asked before, as a JSON body."""
        if len(query) > _LONGEST_KEPT or "__schema" not in query:
            return None
        key = self._key(query)
        if key not in self._memory and self._folder:
            with contextlib.suppress(OSError):
                self._memory[key] = (self._folder / key).read_bytes()
        return self._memory.get(key)

    def compute(self, query: str, variables: dict[str, Any] | None) -> bytes:
        """Answer a question that asks for the schema and nothing else, and keep the answer.

        Mistakes in the question are in the answer, as GraphQL has it.
        """
        from graphql import build_ast_schema, execute_sync, parse, specified_rules, validate

        from buildonce.engine.schema.text import sdl

        schema = build_ast_schema(parse(sdl(), no_location=True), assume_valid=True)
        document = parse(query)
        errors = validate(schema, document, [*specified_rules, *_depth_rule()])
        if errors:
            return _json({"errors": [error.formatted for error in errors]})
        result = execute_sync(schema, document, variable_values=variables)
        body = _json(dict(result.formatted))
        if not result.errors and not variables and len(query) <= _LONGEST_KEPT:
            self._keep(self._key(query), body)
        return body

    def _keep(self, key: str, body: bytes) -> None:
        if len(self._memory) >= _MOST_KEPT:
            return
        self._memory[key] = body
        if self._folder is None:
            return
        # A cache that cannot be written costs 0.2 s the next time, and nothing else.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            kept = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for old in kept[: max(0, len(kept) - _MOST_KEPT + 1)]:
                old.unlink(missing_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(body)
            Path(file.name).replace(self._folder / key)

    @staticmethod
    def _key(query: str) -> str:
        return hashlib.sha256(f"{digest()}\0{query}".encode()).hexdigest()


def _depth_rule() -> list[Any]:
    try:
        from graphql import MaxIntrospectionDepthRule
    except ImportError:  # graphql-core 3.2
        return []
    return [MaxIntrospectionDepthRule]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
