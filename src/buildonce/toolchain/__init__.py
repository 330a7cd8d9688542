"""Everything `buildonce` needs from the machine: found, or made, or named with what to type.

    from buildonce.toolchain import find, ensure

    found = find("buildkitd")          # Found(path, origin, version) or None; builds nothing
    found = await ensure("buildkitd")  # builds it from its pinned Go module where there is none

This package imports only `buildonce.errors` and `buildonce.places`.
"""

from __future__ import annotations

from buildonce.toolchain.binaries import Found, Origin, ensure, find

__all__ = ["Found", "Origin", "ensure", "find"]
