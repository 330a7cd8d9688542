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
    """Where a program is taken from. Only the one file is: it must be linked statically."""

    image: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(pattern=r"^/.*[^/]$")]
