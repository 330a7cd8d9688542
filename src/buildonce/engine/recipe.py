"""Recipes: how an object was asked for, not what it is.

Every object of the API (a container, a directory, a secret …) is an immutable `Recipe`: the field
that made it, its arguments, and the recipe it was called on. Asking for one does no work. Its
digest is its identity, so equal questions are the same object, and the ID that a client gets is
that digest; the session keeps the recipe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildonce.engine.errors import QueryFailed


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """An object of type `type`, made by asking `parent` for `field` with `args`.

    `args` holds JSON values, recipes, and lists of either.

    Attributes:
        asking: what tells this one from others that ask for the same, where each time counts.
    """

    type: str
    field: str
    parent: Recipe | None
    args: Mapping[str, Any]
    asking: str = ""
    digest: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        above = self.parent.digest if self.parent else ""
        parts = [self.type, self.field, above, self.args, self.asking]
        text = json.dumps(parts, sort_keys=True, default=_reference)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def id(self) -> str:
        """What a client holds: the type and the digest."""
        return f"{self.type}:{self.digest}"


def _reference(value: Any) -> str:
    if isinstance(value, Recipe):
        return value.id
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}")


class Recipes:
    """The recipes whose IDs were handed out in this session."""

    def __init__(self) -> None:
        self._known: dict[str, Recipe] = {}

    def remember(self, recipe: Recipe) -> str:
        """Keep `recipe` and answer its ID."""
        self._known[recipe.id] = recipe
        return recipe.id

    def find(self, identifier: str, *, type: str | None = None) -> Recipe:
        """The recipe behind an ID.

        Raises:
            QueryFailed: the ID is not one of this session, or names another type of object.
        """
        recipe = self._known.get(identifier)
        if recipe is None:
            shown = identifier if len(identifier) <= 80 else identifier[:77] + "…"
            raise QueryFailed(
                f"unknown ID {shown!r}: an ID is valid in the session that made it, and only there"
            )
        if type is not None and recipe.type != type:
            raise QueryFailed(f"expected an ID of a {type}, got one of a {recipe.type}")
        return recipe
