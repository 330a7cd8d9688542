"""`[checks.NAME]` of the configuration as keyword arguments of the function of that name.

    [checks.unit_tests]
    coverage_floor = 80          ->    unit_tests(source, tools, coverage_floor=80)

So every check, also one that a user writes, is configured without a line of code.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from buildonce.config import Config, ConfigError
from buildonce.config.mistakes import did_you_mean


def options_for(
    function: Callable[..., Any], config: Config, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The configured keyword arguments of a function, without those that the caller gave.

    Raises:
        ConfigError: the function has no such keyword-only parameter, or the value has another type.
    """
    name = getattr(function, "__name__", "")
    table = config.checks.get(name)
    if not table:
        return {}
    parameters = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    hints = typing.get_type_hints(function)
    options = {}
    for key, value in table.items():
        where = f"{config.where('checks', name, key)}: checks.{name}.{key}"
        if key not in parameters:
            known = f" (it takes: {', '.join(parameters)})" if parameters else ""
            raise ConfigError(
                f"{where}: {name} has no such option{did_you_mean(key, parameters) or known}",
                remedy=f"correct {config.path}",
            )
        try:
            options[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            cause = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{where}: {cause}", remedy=f"correct {config.path}") from None
    return {key: value for key, value in options.items() if key not in given}
