"""Images: built from a Dockerfile, pushed to a registry, written to and read from archives."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from buildonce.engine import images, llb, platforms
from buildonce.engine.archives import date_index, unpack
from buildonce.engine.buildkit import Export
from buildonce.engine.buildkit.filesend import FileSink
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.llb import Output
from buildonce.engine.lowering import wrap
from buildonce.engine.operations import operation
from buildonce.engine.paths import at_root, expand_variables
from buildonce.engine.references import normalize
from buildonce.engine.states import (
    ContainerState,
    DirectoryState,
    FileState,
    SecretState,
    ServiceState,
    SocketState,
)

EPOCH = "SOURCE_DATE_EPOCH"  # reproducible-builds.org: seconds for every timestamp of a result


@operation("Directory.dockerBuild")
async def docker_build(
    engine: Engine,
    self: DirectoryState,
    dockerfile: str = "Dockerfile",
    platform: str | None = None,
    build_args: Sequence[Mapping[str, str]] = (),
    target: str = "",
    secrets: Sequence[SecretState] = (),
    no_init: bool = False,
    ssh: SocketState | None = None,
) -> ContainerState:
    chosen = platforms.normalize(platform, engine.platform) if platform else self.platform
    args = {item["name"]: item["value"] for item in build_args}
    attributes = {"filename": dockerfile, "platform": chosen}
    if target:
        attributes["target"] = target
    attributes.update({f"build-arg:{name}": value for name, value in args.items()})
    source = await _without_ignored(engine, self, dockerfile)
    result = await engine.frontend(
        "dockerfile.v0",
        attributes,
        {"context": engine.as_run(source), "dockerfile": engine.as_run(at_root(self))},
        shown=dockerfile,
    )
    output = llb.unmarshal(result.definition) if result.definition is not None else None
    if output is not None:
        given = {secret.name: secret.identity for secret in secrets}
        addresses = [ssh.address] if ssh else []
        output = wrap(engine, output, given, addresses)
    config = result.metadata.get("containerimage.config", b"")
    epoch = args.get(EPOCH, "")
    return ContainerState(
        platform=chosen,
        rootfs=output,
        image=images.read(config),
        base=result.metadata.get("containerimage.base.config", b""),
        epoch=int(epoch) if epoch.isdecimal() else None,
    )


async def _without_ignored(
    engine: Engine, folder: DirectoryState, dockerfile: str
) -> Output | None:
    """The build's context: the folder without what its `.dockerignore` leaves out."""
    root = at_root(folder)
    if root is None:
        return None
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            text = (await engine.read(root, f"/{name}", limit=1 << 20)).decode(errors="replace")
        except QueryFailed:
            continue
        patterns = [_pattern(line) for line in text.splitlines()]
        patterns = [p for p in patterns if p]
        if not patterns:
            return root
        return (
            FileActions(None)
            .copy(root, "/", "/", contents=True, exclude=patterns)
            .done(platform=folder.platform)
        )
    return root


def _pattern(line: str) -> str:
    """A line of `.dockerignore` as an exclude pattern; empty when it holds none."""
    text = line.strip()
    if not text or text.startswith("#"):
        return ""
    negated = text.startswith("!")
    path = text.removeprefix("!").strip()
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("!" if negated else "") + "/".join(parts)


def _attributes(
    containers: Sequence[ContainerState],
    forced_compression: str | None,
    media_types: str | None,
) -> dict[str, str]:
    attributes: dict[str, str] = {}
    if forced_compression:
        attributes["compression"] = forced_compression.lower()
        attributes["force-compression"] = "true"
    oci = media_types in (None, "OCIMediaTypes", "OCI")
    attributes["oci-mediatypes"] = "true" if oci else "false"
    epochs = {c.epoch for c in containers}
    if len(epochs) == 1 and None not in epochs:
        attributes["source-date-epoch"] = str(epochs.pop())
        attributes["rewrite-timestamp"] = "true"
        if len(containers) == 1 and containers[0].base:
            attributes["containerimage.base.config"] = containers[0].base.decode()
    for container in containers:
        for name, value in container.annotations:
            if len(containers) == 1:
                attributes[f"annotation.{name}"] = value
                continue
            for kind in ("manifest", "manifest-descriptor"):
                attributes[f"annotation-{kind}[{container.platform}].{name}"] = value
    return attributes


async def _export(
    engine: Engine, containers: Sequence[ContainerState], export: Export
) -> dict[str, str]:
    """Export one image, or an index of several."""
    for container in containers:
        await engine.reference(container.rootfs)
    results = [
        (
            container.platform,
            engine.as_run(container.rootfs),
            json.dumps(images.write(container)).encode(),
        )
        for container in containers
    ]
    return await engine.export(results, export)


@operation("Container.publish")
async def publish(
    engine: Engine,
    self: ContainerState,
    address: str,
    platform_variants: Sequence[ContainerState] = (),
    forced_compression: str | None = None,
    media_types: str | None = None,
    registry_service: ServiceState | None = None,
) -> str:
    place = address.partition("@")[0]  # a digest is not chosen but found
    reference = normalize(place)
    containers = _variants(self, platform_variants)
    attributes = _attributes(containers, forced_compression, media_types)
    answer = await _export(
        engine, containers, Export("image", {**attributes, "name": reference, "push": "true"})
    )
    return f"{place}@{answer['containerimage.digest']}"


def _variants(
    container: ContainerState, variants: Sequence[ContainerState]
) -> list[ContainerState]:
    containers = [c for c in (container, *variants) if c.rootfs is not None]
    if not containers:
        raise QueryFailed("no containers to export: they are all empty")
    # Of two for one platform the later one counts. Dagger takes them too: an image of one platform
    # is that, whatever platform it was asked for.
    return list({one.platform: one for one in containers}.values())


async def archive(
    engine: Engine,
    container: ContainerState,
    variants: Sequence[ContainerState],
    forced_compression: str | None,
    media_types: str | None,
    path: Path,
    *,
    name: str = "",
) -> None:
    """Write an image as a file that `docker load` reads, known there as `name` if that is given."""
    containers = _variants(container, variants)
    attributes = _attributes(containers, forced_compression, media_types)
    if name:
        attributes["name"] = name
    # The first is an OCI layout too, which `docker load` reads besides; it holds one image only.
    kind = "docker" if len(containers) == 1 else "oci"
    await _export(engine, containers, Export(kind, attributes, FileSink(path)))
    path.chmod(0o600)  # as Dagger's
    await anyio.to_thread.run_sync(lambda: date_index(path))


@operation("Container.export")
async def export(
    engine: Engine,
    self: ContainerState,
    path: str,
    platform_variants: Sequence[ContainerState] = (),
    forced_compression: str | None = None,
    media_types: str | None = None,
    expand: bool = False,
) -> str:
    target = engine.exports.target(expand_variables(self, path) if expand else path)
    if target.is_dir():
        raise QueryFailed(f"cannot export the image to {path}: it is a directory")
    await anyio.to_thread.run_sync(lambda: target.parent.mkdir(parents=True, exist_ok=True))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".buildonce.") as folder:
        fresh = Path(folder) / "image.tar"
        await archive(engine, self, platform_variants, forced_compression, media_types, fresh)
        fresh.replace(target)
    return str(target)


@operation("Container.asTarball")
async def as_tarball(
    engine: Engine,
    self: ContainerState,
    platform_variants: Sequence[ContainerState] = (),
    forced_compression: str | None = None,
    media_types: str | None = None,
) -> FileState:
    folder = engine.scratch_folder()
    name = "container.tar"
    await archive(engine, self, platform_variants, forced_compression, media_types, folder / name)
    output = await engine.uploads.directory(folder, shown="image archive", made_here=True)
    return FileState(output, f"/{name}", engine.platform)


@operation("Container.import")
async def import_(
    engine: Engine, self: ContainerState, source: FileState, tag: str = ""
) -> ContainerState:
    path = engine.scratch_folder() / "image.tar"
    await engine.exports.file(source, str(path))
    return await imported(engine, self, path, tag)


async def imported(
    engine: Engine, container: ContainerState, path: Path, tag: str = ""
) -> ContainerState:
    """`container` with the image that an archive holds, under `tag` where there are several."""
    layout = engine.scratch_folder() / "layout"
    image = await anyio.to_thread.run_sync(lambda: unpack(path, layout, container.platform, tag))
    store = f"import-{image.digest.removeprefix('sha256:')[:16]}"
    engine.session.oci_layouts = {**engine.session.oci_layouts, store: layout}
    rootfs = llb.source(
        f"oci-layout://{store}/image@{image.digest}",
        {"oci.store": store, "oci.session": engine.session.id},
        platform=container.platform,
        name="import image",
    )
    settings = images.read(image.config)
    return replace(container, rootfs=rootfs, image=settings, last=None, address=None)
