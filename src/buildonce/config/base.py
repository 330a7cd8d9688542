"""What every table of the configuration is made of: a strict model, durations, names."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from buildonce.config.lines import KeyPath

NAME = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"

_DURATION = re.compile(
    r"(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
)


def parse_duration(text: object) -> timedelta:
    """Read "90s", "5m", "1h30m" or "7d".

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    parts = {unit: int(n) for unit, n in match.groupdict().items() if n} if match else {}
    duration = timedelta(**parts)
    if not duration:
        raise ValueError('a duration such as "90s", "5m", "1h30m" or "7d" is wanted')
    return duration


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda value: value.total_seconds(), return_type=float),
]


class Table(BaseModel):
    """A table of the file: a key that it does not know is a mistake, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def known_keys(model: type[BaseModel], keys: KeyPath) -> list[str]:
    """The keys that the table at `keys` may hold, found from the models' annotations."""
    found: Any = model
    for key in keys:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(key)
            found = _bare(field.annotation) if field is not None else None
        else:
            found = _member(found)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        return []
    return [name for name, field in found.model_fields.items() if not field.alias]


def _member(annotation: Any) -> Any:
    """What a mapping or a sequence holds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and arguments:
        return _bare(arguments[1 if issubclass(origin, Mapping) else 0])
    return None


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`; of several models, the first."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        choices = [_bare(a) for a in get_args(annotation) if a is not type(None)]
        models = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        return (models or choices)[0]
    return annotation
