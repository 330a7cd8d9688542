"""`[tools.NAME]`: a program that checks run in containers, and the image that holds it.

[tools.gitleaks]
image = "ghcr.io/gitleaks/gitleaks:v8.30.1"
path = "/usr/bin/gitleaks"
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from buildonce.config.base import Table


class ToolConfig(Table):
    """Where a program is taken from.

    Attributes:
        image: the image that holds it.
        path: where in it.
        base: which of `[images]` the program is put into: the one file, which must be linked
            statically. Without one, checks run in the tool's own image, which must have `sh`.
    """

    image: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(pattern=r"^/.*[^/]$")]
    base: str | None = None
