"""The image store of the client's machine: docker's, podman's or nerdctl's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.operations.host import HostState
from buildonce.engine.operations.publish import archive, imported
from buildonce.engine.references import normalize
from buildonce.engine.states import ContainerState

_PROGRAMS = ("docker", "podman", "nerdctl", "finch")


async def _program() -> str:
    """The first of the programs that is there and has a store that answers."""
    for program in filter(None, map(shutil.which, _PROGRAMS)):
        asked = await anyio.run_process([program, "version"], check=False)
        if asked.returncode == 0:
            return program
    raise QueryFailed(
        "this machine has no image store: none of docker, podman, nerdctl and finch is installed "
        "and answers; publish to a registry, or export to a file"
    )


async def _store(engine: Engine, *args: str) -> None:
    program = await engine.remember("image store", _program)
    done = await anyio.run_process([program, *args], check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise QueryFailed(f"{Path(program).name} {args[0]} {args[-1]}: {said}")


@operation("Container.exportImage")
async def export_image(
    engine: Engine,
    self: ContainerState,
    name: str,
    platform_variants: Sequence[ContainerState] = (),
    forced_compression: str | None = None,
    media_types: str | None = None,
) -> None:
    reference = normalize(name)
    path = engine.scratch_folder() / "image.tar"
    try:
        await archive(
            engine, self, platform_variants, forced_compression, media_types, path, name=reference
        )
        await _store(engine, "load", "--input", str(path))
    finally:
        path.unlink(missing_ok=True)


@operation("Host.containerImage")
async def container_image(engine: Engine, self: HostState, name: str) -> ContainerState:
    reference = normalize(name)
    path = engine.scratch_folder() / "image.tar"
    try:
        await _store(engine, "save", "--output", str(path), "--", reference)
        return await imported(engine, ContainerState(engine.platform), path)
    finally:
        path.unlink(missing_ok=True)
