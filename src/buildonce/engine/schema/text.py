"""The schema's text and its digest, without loading GraphQL."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

SDL_FILE = Path(__file__).with_name("dagger.graphql")


@cache
def sdl() -> str:
    """The schema in GraphQL's schema language."""
    return SDL_FILE.read_text(encoding="utf-8")


@cache
def digest() -> str:
    """SHA-256 of the schema's text, in hex."""
    return hashlib.sha256(sdl().encode()).hexdigest()
