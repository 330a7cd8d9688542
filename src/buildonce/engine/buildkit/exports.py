"""Where the result of a solve goes.

await client.solve(definition, session, exports=[Export.image("host/name", push=True)])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from buildonce.engine.buildkit.filesend import ByteSink, FileSink, FolderSink, Receiver
from buildonce.engine.buildkit.proto import control_pb2


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cache to import from or export to: BuildKit's type and attributes, such as
    `CacheEntry("registry", {"ref": "host/cache", "mode": "max"})`."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> control_pb2.CacheOptionsEntry:
        return control_pb2.CacheOptionsEntry(Type=self.type, Attrs=self.attrs)


@dataclass(frozen=True, slots=True)
class Export:
    """One exporter: BuildKit's type and attributes, and what takes what it sends to us."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    receiver: Receiver | None = None

    @staticmethod
    def local(folder: Path, **attrs: str) -> Export:
        """The files into a folder, merged over what is there."""
        return Export("local", attrs, FolderSink(folder))

    @staticmethod
    def tar(target: Path | ByteSink, **attrs: str) -> Export:
        """The files as one tar archive."""
        return Export("tar", attrs, _bytes_to(target))

    @staticmethod
    def oci(target: Path | ByteSink, **attrs: str) -> Export:
        """An image as an OCI layout in one tar archive."""
        return Export("oci", attrs, _bytes_to(target))

    @staticmethod
    def docker(target: Path | ByteSink, **attrs: str) -> Export:
        """An image as `docker load` reads it."""
        return Export("docker", attrs, _bytes_to(target))

    @staticmethod
    def image(name: str, *, push: bool = False, insecure: bool = False, **attrs: str) -> Export:
        """An image under `name`, in the daemon's store and, if `push`, in its registry.

        Other attributes are BuildKit's, such as `compression`; those with a dot in their name go
        into the constructor: `Export("image", {"containerimage.config": "{…}", …})`.
        """
        own = {"name": name}
        if push:
            own["push"] = "true"
        if insecure:
            own["registry.insecure"] = "true"
        return Export("image", {**own, **attrs})

    def message(self) -> control_pb2.Exporter:
        return control_pb2.Exporter(Type=self.type, Attrs=self.attrs)


def _bytes_to(target: Path | ByteSink) -> Receiver:
    return FileSink(target) if isinstance(target, Path) else target
