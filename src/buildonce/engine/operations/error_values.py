"""Errors as objects, which programs make, fill with values and hand on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from buildonce.engine.engine import Engine
from buildonce.engine.operations import operation


@dataclass(frozen=True, slots=True)
class ErrorValueState:
    """A named value of an error, as JSON."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ErrorState:
    """What went wrong, in words and values."""

    message: str
    values: tuple[ErrorValueState, ...] = ()


@operation("Query.error")
def error(engine: Engine, self: None, message: str) -> ErrorState:
    return ErrorState(message)


@operation("Error.withValue")
def with_value(engine: Engine, self: ErrorState, name: str, value: str) -> ErrorState:
    return replace(self, values=(*self.values, ErrorValueState(name, value)))


@operation("Error.message")
async def message(engine: Engine, self: ErrorState) -> str:
    return self.message


@operation("Error.values")
async def values(engine: Engine, self: ErrorState) -> list[ErrorValueState]:
    return list(self.values)


@operation("ErrorValue.name")
async def value_name(engine: Engine, self: ErrorValueState) -> str:
    return self.name


@operation("ErrorValue.value")
async def value_value(engine: Engine, self: ErrorValueState) -> str:
    return self.value
