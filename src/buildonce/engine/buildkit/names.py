"""Names that we give to sessions, solves and containers."""

from __future__ import annotations

import secrets


def new_id() -> str:
    """A random name: 25 lower-case characters, as BuildKit's own are."""
    return "b" + secrets.token_hex(12)
