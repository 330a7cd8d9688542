"""What containers of an environment were configured with, kept so that a rollback brings it back.

    manifest = keep(folder, Given({"GREETING": "hello"}, mount_ledger=False))   # goes to the ledger
    read(folder, manifest)                                  # the same again, however long after

Everybody may read the ledger, so it gets a digest only; the values are in files that only the user
of the environment reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from buildonce.delivery.errors import ManifestLost

_FOLDER = "configurations"


@dataclass(frozen=True)
class Given:
    """What a container gets beside its release."""

    variables: Mapping[str, str]
    mount_ledger: bool


def keep(folder: Path, given: Given) -> dict[str, Any]:
    """Keep it under its digest; the manifest that finds it again."""
    content = json.dumps({**asdict(given), "variables": dict(given.variables)}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = folder / _FOLDER / f"{digest}.json"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
        scratch.replace(path)
    return {"configuration": f"sha256:{digest}"}


def read(folder: Path, manifest: Mapping[str, Any]) -> Given:
    """What was kept.

    Raises:
        ManifestLost: it is not here any more, or is not what was kept.
    """
    digest = str(manifest.get("configuration", "")).removeprefix("sha256:")
    path = folder / _FOLDER / f"{digest}.json"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("it was changed since")
        data = json.loads(content)
        return Given(data["variables"], data["mount_ledger"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestLost(
            f"the configuration that {folder.name} had then cannot be read: {error}",
            remedy=f"buildonce deploy {folder.name} --release VERSION  # as configured now",
        ) from error
