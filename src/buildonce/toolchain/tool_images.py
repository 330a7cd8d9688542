"""Images of one program each, for a machine that can pull none: the scanners that are Go programs.

    images = tool_images(LoopbackRegistry.configured().address)
    images[0].reference                     # "127.0.0.1:5080/base/gitleaks:v8.30.1"
    await images[0].publish(progress=print) # built when missing, pushed when missing

An image holds a single static program. A check copies it into its own container, so that nothing
else of the image counts, and a newer scanner runs only its own check anew.
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from buildonce import places
from buildonce.toolchain import binaries, golang, oci
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, silent
from buildonce.toolchain.table import GO_MODULES, GoModule
from buildonce.toolchain.whole import whole_folder

FOLDER = "/usr/local/bin"
_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class ToolImage:
    """The image of one program.

    Args:
        name: the program's: "gitleaks".
        module: what it is built from.
        registry: host and port of the registry that serves it.
    """

    name: str
    module: GoModule
    registry: str

    @property
    def reference(self) -> str:
        return f"{self.registry}/base/{self.name}:{self.module.version}"

    def made(self) -> Path | None:
        """The OCI layout in the cache, if the program and the layout are there."""
        found = binaries.find_static(self.name)
        if found is None:
            return None
        folder = self._folder(found.path)
        return folder if (folder / "index.json").is_file() else None

    async def make(self, *, progress: Progress = silent) -> Path:
        """The OCI layout in the cache, made when it is not there; builds the program first.

        Raises:
            BuildonceError: the program cannot be built.
        """
        program = (await binaries.ensure_static(self.name, progress=progress)).path
        folder = self._folder(program)
        async with locked(places.cache() / "locks" / f"{folder.name}.lock", waiting=progress):
            if not (folder / "index.json").is_file():
                progress(f"packing {self.name}")
                with whole_folder(folder) as making:
                    await anyio.to_thread.run_sync(self._pack, program, making)
        return folder

    async def publish(self, *, progress: Progress = silent) -> str:
        """Have the image in its registry; the digest that it has there.

        Raises:
            BuildonceError: it cannot be made, or the registry does not answer or refuses.
        """
        layout = await self.make(progress=progress)
        digest = oci.layout_digest(layout)
        if await oci.pushed_digest(self.reference) != digest:
            await oci.push(layout, self.reference, progress=progress)
        return digest

    def served(self) -> bool:
        """Whether the registry has this very image; a few milliseconds."""
        layout = self.made()
        return layout is not None and serves(self.reference, layout)

    def _folder(self, program: Path) -> Path:
        real = program.resolve()
        facts = real.stat()
        key = f"{golang.architecture()} {real} {facts.st_size} {facts.st_mtime_ns}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return places.cache() / "base" / f"{self.name}-{self.module.version}-{digest}"

    def _pack(self, program: Path, folder: Path) -> None:
        rootfs = folder / "rootfs.tar"
        with tarfile.open(rootfs, "w", format=tarfile.PAX_FORMAT) as tar:
            entry = tar.gettarinfo(program.resolve(), f"{FOLDER.lstrip('/')}/{self.name}")
            entry.mode, entry.mtime, entry.uid, entry.gid = 0o755, 0, 0, 0
            with program.open("rb") as content:
                tar.addfile(entry, content)
        oci.write_layout(
            folder,
            rootfs,
            architecture=golang.architecture(),
            created=_CREATED,
            config={"Entrypoint": [f"{FOLDER}/{self.name}"]},
        )
        rootfs.unlink()


def tool_images(registry: str) -> list[ToolImage]:
    """The image of each program that checks run in containers."""
    return [
        ToolImage(name, module, registry)
        for module in GO_MODULES
        if module.in_containers
        for name in module.packages
    ]


def serves(reference: str, layout: Path) -> bool:
    """Whether the loopback registry has the image of `layout` under `reference`."""
    host, _, rest = reference.partition("/")
    name, _, tag = rest.rpartition(":")
    with suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        connection = http.client.HTTPConnection(host, timeout=5)
        try:
            path = f"/v2/{name}/manifests/{tag}"
            connection.request("HEAD", path, headers={"Accept": oci.MANIFEST})
            answer = connection.getresponse()
            return answer.getheader("Docker-Content-Digest") == oci.layout_digest(layout)
        finally:
            connection.close()
    return False
