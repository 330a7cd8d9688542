"""Where buildonce keeps things on this machine.

    >>> from buildonce import places
    >>> places.cache() / "bin"      # may be deleted at any time; is made again
    >>> places.home() / "registry"  # lives on: images, ledgers, environments

`BUILDONCE_CACHE` and `BUILDONCE_HOME` override the XDG places.
"""

from __future__ import annotations

import os
from pathlib import Path

from buildonce.errors import BuildonceError


def cache() -> Path:
    """The folder of things that can be made again; created when missing (mode 0755)."""
    return _folder("BUILDONCE_CACHE", "XDG_CACHE_HOME", ".cache", mode=0o755)


def home() -> Path:
    """The folder of things that live on; created when missing.

    Mode 0755: containers of other users read the ledger through a read-only mount of it.
    """
    return _folder("BUILDONCE_HOME", "XDG_DATA_HOME", ".local/share", mode=0o755)


def _folder(variable: str, xdg: str, fallback: str, *, mode: int) -> Path:
    if own := os.environ.get(variable):
        folder = Path(own).expanduser()
    else:
        base = os.environ.get(xdg, "")
        # The XDG specification says that a relative path in its variables is to be ignored.
        root = Path(base) if base.startswith("/") else Path.home() / fallback
        folder = root / "buildonce"
    folder = folder.absolute()
    if not folder.is_dir():
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise BuildonceError(
                f"the folder {folder} cannot be made: {error.strerror}",
                remedy=f"set {variable} to a folder that this user may write to",
            ) from error
    return folder
