"""Whether a licence is acceptable: SPDX expressions against lists of what is allowed and denied.

rules = LicenceRules(allow=("MIT", "BSD-*"), deny=("AGPL-*",))
rules.verdict("MIT OR AGPL-3.0-only")      # Verdict.ALLOWED: one may be chosen
rules.verdict("MIT AND AGPL-3.0-only")     # Verdict.DENIED: both hold
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from license_expression import (
    ExpressionError,
    LicenseWithExceptionSymbol,
    Licensing,
    get_spdx_licensing,
)

from buildonce.stages.licences_names import expression_for

_MAX_EXPRESSION = 2_000


class Verdict(IntEnum):
    """What the rules say; the worse the smaller."""

    DENIED = 0
    UNKNOWN = 1
    ALLOWED = 2


@dataclass(frozen=True)
class LicenceRules:
    """Which licences are acceptable.

    Args:
        allow: SPDX identifiers; `*` stands for anything ("BSD-*"). Empty: all that SPDX knows and
            that is not denied.
        deny: SPDX identifiers, likewise; an identifier in both lists is denied.

    A licence with an exception ("GPL-2.0-only WITH Classpath-exception-2.0") is judged by an entry
    that names both, else by the licence alone: an exception only adds permissions.
    """

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()

    def verdict(self, expression: str) -> Verdict:
        """What the rules say about an SPDX expression; UNKNOWN when it is none."""
        parsed = parse(expression)
        return Verdict.UNKNOWN if parsed is None else self._of(parsed)

    def _of(self, node: Any) -> Verdict:
        licensing = _licensing()
        if isinstance(node, licensing.OR):
            return max(self._of(part) for part in node.args)
        if isinstance(node, licensing.AND):
            return min(self._of(part) for part in node.args)
        if isinstance(node, LicenseWithExceptionSymbol):
            whole = str(node.render())
            listed = self._listed(whole)
            return listed if listed is not None else self._of(node.license_symbol)
        listed = self._listed(str(node.key))
        if listed is not None:
            return listed
        known = not self.allow and is_spdx(str(node.key))
        return Verdict.ALLOWED if known else Verdict.UNKNOWN

    def _listed(self, identifier: str) -> Verdict | None:
        if _matches(identifier, self.deny):
            return Verdict.DENIED
        return Verdict.ALLOWED if _matches(identifier, self.allow) else None


def _matches(identifier: str, patterns: Sequence[str]) -> bool:
    # Identifiers are the same in any case, says SPDX. A pattern is for one licence: it must not
    # reach into the name of an exception unless it names one.
    lowered = identifier.lower()
    return any(
        fnmatch.fnmatchcase(lowered, pattern.lower())
        for pattern in patterns
        if (" with " in lowered) == (" with " in pattern.lower())
    )


def parse(expression: str) -> Any | None:
    """The parsed expression; None when it is none."""
    if not expression.strip() or len(expression) > _MAX_EXPRESSION:
        return None
    try:
        return _licensing().parse(expression, strict=True)
    except (ExpressionError, RecursionError, ValueError, TypeError, AttributeError):
        return None


def is_spdx(identifier: str) -> bool:
    """Whether SPDX has a licence of that name."""
    symbol = _licensing().known_symbols.get(identifier)
    return symbol is not None and not symbol.is_exception


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


def declared(component: Mapping[str, Any]) -> list[str]:
    """The licences of a CycloneDX component, as expressions where they can be read as such.

    Several entries are all taken to hold: that they are alternatives is said by an expression only.
    """
    found = []
    stated = component.get("licenses")
    for entry in stated if isinstance(stated, list) else ():
        if not isinstance(entry, Mapping):
            continue
        licence = entry.get("license")
        if isinstance(entry.get("expression"), str):
            found.append(entry["expression"])
        elif isinstance(licence, Mapping):
            text = licence.get("id") or licence.get("name")
            if isinstance(text, str) and text.strip():
                found.append(_readable(text.strip()))
    return list(dict.fromkeys(found))


def _readable(name: str) -> str:
    """A name as an expression, if it is one, or one is known for it; else as it is."""
    if known := expression_for(name):
        return known
    parsed = parse(name)
    # "MIT or so" parses as a choice between "MIT" and "so": free text is no expression.
    if parsed is not None and not _licensing().unknown_license_keys(parsed):
        return str(parsed.render())
    return f"LicenseRef-unreadable: {' '.join(name.split())[:80]}"
