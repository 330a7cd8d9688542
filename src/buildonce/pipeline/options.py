"""`[checks.NAME]` of the configuration as keyword arguments of the function of that name.

    [checks.unit_tests]
    coverage_floor = 80          ->    unit_tests(source, tools, coverage_floor=80)

So every check, also one that a user writes, is configured without a line of code. One that has a
parameter `waivers` gets those of `[[waivers]]` that name it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from buildonce.config import Config, ConfigError
from buildonce.config.mistakes import did_you_mean
from buildonce.report import RunRecord
from buildonce.stages import Waiver

_WAIVERS = "waivers"


def options_for(
    function: Callable[..., Any], config: Config, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The configured keyword arguments of a function, without those that the caller gave.

    Raises:
        ConfigError: the function has no such keyword-only parameter, or the value has another type.
    """
    name = getattr(function, "__name__", "")
    table = config.checks.get(name, {})
    waivers = waivers_of(name, config)
    if not table and not waivers:
        return {}
    parameters = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    hints = typing.get_type_hints(function)
    options: dict[str, Any] = {}
    if waivers:
        if _WAIVERS not in parameters:
            raise ConfigError(
                f"{waivers[0].where}: {name} has no findings that can be waived",
                remedy=f"correct {config.path}",
            )
        options[_WAIVERS] = waivers
    for key, value in table.items():
        where = f"{config.where('checks', name, key)}: checks.{name}.{key}"
        if key == _WAIVERS:
            raise ConfigError(f"{where}: waivers are written as [[waivers]], each with its reason")
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


def waivers_of(check: str, config: Config) -> tuple[Waiver, ...]:
    """The waivers that the configuration has for a check, each with the place where it stands."""
    return tuple(
        Waiver(
            check=waiver.check,
            id=waiver.id,
            reason=waiver.reason,
            expires=waiver.expires,
            path=waiver.path,
            where=config.where(_WAIVERS, str(number)),
        )
        for number, waiver in enumerate(config.waivers)
        if waiver.check == check
    )


def unused_options(config: Config, record: RunRecord) -> list[str]:
    """Tables of options and waivers that no check of the run took: most likely misspelt."""
    names = {check.name for stage in record.stages for check in stage.checks}
    tables = [(name, ("checks", name)) for name in config.checks]
    tables += [(w.check, (_WAIVERS, str(n))) for n, w in enumerate(config.waivers)]
    return [
        f"{config.where(*keys)}: no check is called {name!r}"
        for name, keys in tables
        if name not in names
    ]
