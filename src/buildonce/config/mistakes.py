"""Saying what is wrong in a configuration file: file and line, key, cause, remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic_core import ErrorDetails

from buildonce.config.lines import KeyPath
from buildonce.errors import BuildonceError, ExitCode


class ConfigError(BuildonceError):
    """The configuration says something that cannot be."""

    exit_code = ExitCode.USAGE


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def explain(
    errors: Iterable[ErrorDetails],
    path: Path,
    line_of: Callable[[KeyPath], int | None],
    known_keys: Callable[[KeyPath], list[str]],
) -> ConfigError:
    """One error for all that is wrong, each with the line where it stands.

    Args:
        errors: what pydantic found.
        path: the file.
        line_of: where a key stands.
        known_keys: the keys that the table at a key path may hold.
    """
    messages = []
    for error in errors:
        keys, cause = _cause(error, known_keys)
        line = line_of(keys)
        where = f"{path}:{line}" if line else str(path)
        messages.append(f"{where}: {'.'.join(keys)}: {cause}")
    return ConfigError("\n".join(messages), remedy=f"correct {path}")


def _cause(error: ErrorDetails, known_keys: Callable[[KeyPath], list[str]]) -> tuple[KeyPath, str]:
    """The key that an error is about, and what is wrong with it."""
    keys = tuple(str(part) for part in error["loc"] if part != "[key]")
    cause = error["msg"].removeprefix("Value error, ")
    # A validator of the whole begins its message with the key that it is about.
    if match := re.match(r"([a-z]+(?:\.[\w -]+)+): (.*)", cause, re.DOTALL):
        keys, cause = tuple(match.group(1).split(".")), match.group(2)
    if error["type"] == "extra_forbidden":
        cause = f"unknown key{did_you_mean(keys[-1], known_keys(keys[:-1]))}"
    elif error["type"] == "missing":
        cause = "this key is missing"
    elif error["type"] == "string_pattern_mismatch":
        cause = f"does not have the form {error['ctx']['pattern']}"
    return keys, cause
