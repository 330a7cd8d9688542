"""JSON: values that programs take from files, look into and make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.operations.file import contents as contents_of
from buildonce.engine.states import FileState

_EXACT = 1e21  # beyond this Go writes an exponent
_KINDS: dict[type, str] = {bool: "a boolean", int: "an integer", str: "a string", list: "an array"}


@dataclass(frozen=True, slots=True)
class JSONValueState:
    """A JSON text, kept as it was given."""

    text: str = "null"

    @property
    def value(self) -> Any:
        """What the text says."""
        return json.loads(self.text, parse_float=_number)


def _number(text: str) -> int | float:
    """`1e3` as 1000, as Go writes what it has read."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _made(value: Any) -> JSONValueState:
    return JSONValueState(_compact(value))


def _compact(value: Any, indent: str | None = None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=separators, indent=indent
    )
    # As Go writes it, which is safe within HTML and JavaScript.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _checked(text: str) -> JSONValueState:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise QueryFailed(f"invalid JSON: {error}") from None
    return JSONValueState(text)


@operation("Query.json")
def json_(engine: Engine, self: None) -> JSONValueState:
    return JSONValueState()


@operation("File.asJSON")
async def as_json(engine: Engine, self: FileState) -> JSONValueState:
    return _checked(await contents_of(engine, self))


@operation("JSONValue.withContents")
def with_contents(engine: Engine, self: JSONValueState, contents: str) -> JSONValueState:
    return _checked(contents)


@operation("JSONValue.contents")
async def contents(
    engine: Engine, self: JSONValueState, pretty: bool = False, indent: str = "  "
) -> str:
    return _compact(self.value, indent) if pretty else self.text


@operation("JSONValue.newInteger", "JSONValue.newString", "JSONValue.newBoolean")
def new(engine: Engine, self: JSONValueState, value: Any) -> JSONValueState:
    return _made(value)


def _typed(value: JSONValueState, wanted: type) -> Any:
    found = value.value
    if type(found) is not wanted:
        raise QueryFailed(f"value is not {_KINDS[wanted]}")
    return found


@operation("JSONValue.asInteger")
async def as_integer(engine: Engine, self: JSONValueState) -> int:
    return int(_typed(self, int))


@operation("JSONValue.asString")
async def as_string(engine: Engine, self: JSONValueState) -> str:
    return str(_typed(self, str))


@operation("JSONValue.asBoolean")
async def as_boolean(engine: Engine, self: JSONValueState) -> bool:
    return bool(_typed(self, bool))


@operation("JSONValue.asArray")
async def as_array(engine: Engine, self: JSONValueState) -> list[JSONValueState]:
    return [_made(item) for item in _typed(self, list)]


@operation("JSONValue.fields")
async def fields(engine: Engine, self: JSONValueState) -> list[str]:
    found = self.value
    if not isinstance(found, dict):
        raise QueryFailed("value is not an object")
    return sorted(found)


@operation("JSONValue.field")
def field(engine: Engine, self: JSONValueState, path: Sequence[str]) -> JSONValueState:
    found = self.value
    for name in path:
        if not isinstance(found, dict):
            raise QueryFailed(f"can't lookup field '{name}' in non-object value")
        if name not in found:
            raise QueryFailed(f"no such field: '{name}'")
        found = found[name]
    return _made(found)


@operation("JSONValue.withField")
def with_field(
    engine: Engine, self: JSONValueState, path: Sequence[str], value: JSONValueState
) -> JSONValueState:
    whole = self.value
    whole = whole if isinstance(whole, dict) else {}
    inner = whole
    for name in path[:-1]:
        below = inner.get(name)
        if not isinstance(below, dict):
            below = inner[name] = {}
        inner = below
    if path:
        inner[path[-1]] = value.value
    return _made(whole)
