"""A cache that outlives the machine: in a registry or a folder, for runners that start empty.

    [engine.cache]
    registry = "registry.example.org/team/cache"     # or: folder = ".cache/buildonce"
    export = true                                    # false: only read, as pull requests should

A session reads from it before it runs anything, and writes to it once, when it ends, what it has
made that nothing else was made of.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from buildonce.engine import llb
from buildonce.engine.buildkit import Build, CacheEntry, Session
from buildonce.engine.llb import Output
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("buildonce.engine")
_INDEX = "index.json"
_TAG = "latest"


@dataclass(frozen=True, slots=True)
class RemoteCache:
    """Where it is, and whether this session adds to it.

    Attributes:
        registry: an image reference without tag or digest; None for a folder.
        folder: a folder of this machine, kept between runs by the CI vendor.
        export: write what this session has made.
    """

    registry: str | None = None
    folder: Path | None = None
    export: bool = True

    def imports(self) -> list[CacheEntry]:
        """What a solve may find its steps in."""
        if self.registry:
            return [CacheEntry("registry", {"ref": self.registry})]
        if self.folder is None or (digest := _indexed(self.folder)) is None:
            return []
        attributes = {"src": str(self.folder), "tag": _TAG, "digest": digest}
        return [CacheEntry("local", attributes)]

    def exports(self) -> list[CacheEntry]:
        """Where a build's cache is written to."""
        if not self.export:
            return []
        attributes = {"mode": "max", "oci-mediatypes": "true", "image-manifest": "true"}
        if self.registry:
            return [CacheEntry("registry", {"ref": self.registry, **attributes})]
        return [CacheEntry("local", {"dest": str(self.folder), "tag": _TAG, **attributes})]

    def share(self, session: Session) -> None:
        """Let the daemon read and write the folder."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            stores = {**session.content_stores, f"local:{self.folder}": self.folder}
            session.content_stores = stores

    async def write(self, build: Build, references: Mapping[Output, str]) -> None:
        """End `build` and write the cache of what it made; a failure is logged, not raised.

        Args:
            references: what was solved, and the build's reference to it.
        """
        wanted = [references[output] for output in _last(references)]
        if not wanted or not self.export:
            return
        names = {str(number): reference for number, reference in enumerate(wanted)}
        platform = {"os": "linux", "architecture": "amd64"}  # a name is asked for, and unused
        listed = [{"ID": name, "Platform": platform} for name in names]
        metadata = {"refs.platforms": json.dumps({"Platforms": listed}).encode()}
        try:
            answer = await build.finish(names, metadata)
            if self.folder is not None and "cache.manifest" in answer:
                _index(self.folder, json.loads(answer["cache.manifest"]))
        except (BuildonceError, OSError) as error:
            _log.warning("the remote cache was not written: %s", error)


def _last(outputs: Iterable[Output]) -> list[Output]:
    """Those that no other was made of; their caches hold the rest."""
    solved = list(outputs)
    used = {item for vertex in llb.walk(solved) for item in vertex.inputs}
    return [output for output in solved if output not in used]


def _indexed(folder: Path) -> str | None:
    try:
        index = json.loads((folder / _INDEX).read_text())
        return str(index["manifests"][0]["digest"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # an empty or damaged cache only costs time


def _index(folder: Path, manifest: Mapping[str, object]) -> None:
    annotated = {**manifest, "annotations": {"org.opencontainers.image.ref.name": _TAG}}
    partial = folder / f"{_INDEX}.partial"
    partial.write_text(json.dumps({"schemaVersion": 2, "manifests": [annotated]}))
    partial.replace(folder / _INDEX)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
