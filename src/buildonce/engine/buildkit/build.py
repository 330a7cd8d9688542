"""One long-lived build: many solves in one job, whose results live until it is closed.

BuildKit calls this a gateway: the daemon keeps a bridge open for us as it does for a Dockerfile
frontend. What one solve computed the next finds in memory, and files are read straight from
results, without exporting them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from os import fsencode
from typing import TypeVar

from google.protobuf.message import Message

from buildonce.engine.buildkit import shim
from buildonce.engine.buildkit.attempts import Attempts
from buildonce.engine.buildkit.container import Container
from buildonce.engine.buildkit.errors import SolveError
from buildonce.engine.buildkit.exports import CacheEntry
from buildonce.engine.buildkit.job import Job
from buildonce.engine.buildkit.platforms import platform_message
from buildonce.engine.buildkit.proto import gateway_pb2, ops_pb2
from buildonce.engine.buildkit.stats import Stat

Answer = TypeVar("Answer", bound=Message)

READ = 8 << 20  # bytes of a file per question
LEFT = 20.0  # seconds for reading what a failed command has left


@dataclass(frozen=True, slots=True)
class Result:
    """What a solve answers.

    Attributes:
        ref: reference of the file system; "" is scratch.
        refs: for several platforms: the reference of each, by platform.
        definition: the graph that a frontend made, so that it can be built upon.
        definitions: the same by platform.
        metadata: the frontend's answer, such as "containerimage.config".
    """

    ref: str
    refs: Mapping[str, str] = field(default_factory=dict)
    definition: ops_pb2.Definition | None = None
    definitions: Mapping[str, ops_pb2.Definition] = field(default_factory=dict)
    metadata: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image as its registry has it now.

    Attributes:
        ref: the reference as the daemon normalised it.
        digest: of the manifest or index, "sha256:…".
        config: the platform's image configuration, JSON.
    """

    ref: str
    digest: str
    config: bytes


class Build:
    """See the module; made by `Client.build`."""

    def __init__(self, main: Job, attempts: Attempts) -> None:
        self._main = main
        self._attempts = attempts

    async def opened(self) -> None:
        """Wait until the daemon takes calls for this build."""
        await self._main.call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse)

    async def finish(
        self, refs: Mapping[str, str], metadata: Mapping[str, bytes]
    ) -> dict[str, str]:
        """End the build with a result for its exporters, by platform, and answer what they say.

        Raises:
            SolveError: an exporter failed.
        """
        by_platform = {platform: gateway_pb2.Ref(id=ref) for platform, ref in refs.items()}
        result = gateway_pb2.Result(refs=gateway_pb2.RefMap(refs=by_platform), metadata=metadata)
        return await self._main.finish(result)

    async def closed(self) -> None:
        """End the build; its references are gone after this."""
        await self._attempts.close()
        await self._main.close()

    async def solve(
        self,
        definition: ops_pb2.Definition | None = None,
        *,
        frontend: str = "",
        frontend_attrs: Mapping[str, str] | None = None,
        frontend_inputs: Mapping[str, ops_pb2.Definition] | None = None,
        evaluate: bool = True,
        cache_imports: Iterable[CacheEntry] = (),
        retry: bool = True,
    ) -> Result:
        """Solve a graph, or what a frontend such as "dockerfile.v0" makes of its attributes.

        Args:
            evaluate: run everything now, not when something is first read.
            retry: let a step that failed be tried again in this build. Without, the build knows
                how each result came to be, which exporting its cache needs.

        Raises:
            SolveError: a step failed.
        """
        imports = [gateway_pb2.CacheOptionsEntry(Type=c.type, Attrs=c.attrs) for c in cache_imports]
        request = gateway_pb2.SolveRequest(
            Definition=definition,
            Frontend=frontend,
            FrontendOpt=frontend_attrs,
            FrontendInputs=as_inputs(frontend_inputs),
            Evaluate=evaluate,
            CacheImports=imports,
            allowResultReturn=True,
            allowResultArrayRef=True,
        )
        if evaluate and retry:
            answer = await self._attempts.solve(request, self._main)
        else:
            answer = await self._call("Solve", request, gateway_pb2.SolveResponse, definition)
        result = answer.result
        if result.WhichOneof("result") == "refs":
            refs = result.refs.refs
            return Result(
                ref="",
                refs={platform: ref.id for platform, ref in refs.items()},
                definitions={
                    platform: definition
                    for platform, ref in refs.items()
                    if (definition := _definition(ref)) is not None
                },
                metadata=dict(result.metadata),
            )
        return Result(
            ref=result.ref.id,
            definition=_definition(result.ref),
            metadata=dict(result.metadata),
        )

    async def read_file(self, ref: str, path: str, offset: int = 0, length: int = 0) -> bytes:
        """The content of a file of a result, from `offset`, `length` bytes of it or (0) the rest.

        Raises:
            PathNotFound: there is no such file.
        """
        # The daemon's messages end at 16 MiB, so larger files come in parts.
        parts: list[bytes] = []
        done = 0
        while length == 0 or done < length:
            size = min(READ, length - done) if length else READ
            request = gateway_pb2.ReadFileRequest(
                Ref=ref,
                FilePath=fsencode(path),
                Range=gateway_pb2.FileRange(Offset=offset + done, Length=size),
            )
            data = (await self._call("ReadFile", request, gateway_pb2.ReadFileResponse)).Data
            parts.append(data)
            done += len(data)
            if len(data) < size:
                break
        return b"".join(parts)

    async def read_dir(self, ref: str, path: str, include: str | None = None) -> list[Stat]:
        """What a directory of a result holds, sorted by name, not its subdirectories.

        Args:
            include: only names that match this pattern.

        Raises:
            PathNotFound: there is no such directory.
        """
        request = gateway_pb2.ReadDirRequest(
            Ref=ref, DirPath=fsencode(path), IncludePattern=include or ""
        )
        answer = await self._call("ReadDir", request, gateway_pb2.ReadDirResponse)
        return [Stat.of(entry) for entry in answer.entries]

    async def stat_file(self, ref: str, path: str) -> Stat:
        """What is at a path of a result; symbolic links are not followed.

        Raises:
            PathNotFound: nothing is there.
        """
        request = gateway_pb2.StatFileRequest(Ref=ref, Path=fsencode(path))
        answer = await self._call("StatFile", request, gateway_pb2.StatFileResponse)
        return Stat.of(answer.stat)

    async def read_failed(
        self, error: SolveError, dest: str, names: Sequence[str]
    ) -> dict[str, bytes]:
        """Files that a failed command has left in its mount at `dest`.

        BuildKit keeps a failed command's mounts but lets nobody read them except from inside a
        container, so this starts one that only runs the shim, which the failed command must have
        had mounted at /.buildonce/shim.

        Args:
            names: paths within the mount; those that are not there are left out of the answer.

        What is left is kept for ten seconds, or until the step is tried again.

        Raises:
            SolveError: the mounts are not there, or no container could be started.
        """
        mounts = error.op.exec.mounts if error.op is not None else ()
        by_dest = {
            mount.dest: (mount, ref)
            for mount, ref in zip(mounts, error.mount_refs, strict=False)
            if ref
        }
        if dest not in by_dest or shim.PATH not in by_dest:
            raise SolveError(f"the failed step has left no mount at {dest} to read")
        out = by_dest[dest][1]
        tool, tool_ref = by_dest[shim.PATH]
        container_mounts = [
            ops_pb2.Mount(dest="/", resultID=out),
            ops_pb2.Mount(dest=shim.PATH, resultID=tool_ref, selector=tool.selector, readonly=True),
        ]
        request = gateway_pb2.NewContainerRequest(Mounts=container_mounts, Network=ops_pb2.NONE)
        job = error.job or self._main
        try:
            async with asyncio.timeout(LEFT):
                async with Container.create(job.caller, request) as container:
                    arguments = [shim.PATH, "read", *names]
                    async with container.start(arguments, env={}, cwd="/", stdin=False) as process:
                        output, problems = await process.communicate()
                        code = await process.wait()
        except TimeoutError:  # a daemon whose disk is full may never answer
            raise SolveError("what the failed step has left could not be read in time") from None
        if code != 0:
            raise SolveError(
                f"reading what a failed step has left failed: {problems.decode(errors='replace')}"
            )
        return shim.parse_read(output, names)

    async def resolve_image(
        self, ref: str, *, platform: str | None = None, mode: str = "default"
    ) -> ResolvedImage:
        """Ask the registry for an image's digest and configuration.

        Args:
            ref: such as "docker.io/library/python:3.12".
            mode: "default", "pull" (always ask the registry) or "local" (prefer what is there).

        Raises:
            ImageNotFound, Unauthorized: as the registry says.
        """
        return await self._resolve(f"docker-image://{ref}", {}, platform, mode)

    async def resolve_layout(
        self, store: str, ref: str, *, platform: str | None = None
    ) -> ResolvedImage:
        """The same for an image in one of the session's OCI layouts: "name@sha256:…"."""
        return await self._resolve(f"oci-layout://{ref}", {"oci.store": store}, platform, "")

    async def _resolve(
        self, identifier: str, attrs: Mapping[str, str], platform: str | None, mode: str
    ) -> ResolvedImage:
        request = gateway_pb2.ResolveSourceMetaRequest(
            Source=ops_pb2.SourceOp(identifier=identifier, attrs=attrs),
            Platform=platform_message(platform) if platform else None,
            LogName=f"resolve {identifier.partition('://')[2]}",
            ResolveMode=mode,
        )
        answer = await self._call(
            "ResolveSourceMeta", request, gateway_pb2.ResolveSourceMetaResponse
        )
        name = answer.Source.identifier.partition("://")[2]
        return ResolvedImage(name, answer.Image.Digest, answer.Image.Config)

    async def resolve_git(self, identifier: str, attrs: Mapping[str, str]) -> str:
        """The commit that a git source (`git://host/repo#branch`) stands for now."""
        request = gateway_pb2.ResolveSourceMetaRequest(
            Source=ops_pb2.SourceOp(identifier=identifier, attrs=attrs)
        )
        answer = await self._call(
            "ResolveSourceMeta", request, gateway_pb2.ResolveSourceMetaResponse
        )
        return answer.Git.CommitChecksum or answer.Git.Checksum

    def container(
        self,
        mounts: Sequence[ops_pb2.Mount],
        *,
        network: ops_pb2.NetMode.ValueType = ops_pb2.UNSET,
        hostname: str = "",
        extra_hosts: Mapping[str, str] | None = None,
        platform: str | None = None,
    ) -> AbstractAsyncContextManager[Container]:
        """A container that lives until the block ends; its changes to mounts are discarded.

        Args:
            mounts: with `resultID` naming a reference; one of them with dest "/".
            extra_hosts: addresses by host name.
        """
        return self._container(
            gateway_pb2.NewContainerRequest(
                Mounts=mounts,
                Network=network,
                hostname=hostname,
                platform=platform_message(platform) if platform else None,
                extraHosts=[
                    ops_pb2.HostIP(Host=host, IP=ip) for host, ip in (extra_hosts or {}).items()
                ],
            )
        )

    @asynccontextmanager
    async def _container(
        self, request: gateway_pb2.NewContainerRequest
    ) -> AsyncIterator[Container]:
        async with Container.create(self._main.caller, request) as container:
            yield container

    async def _call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        definition: ops_pb2.Definition | None = None,
    ) -> Answer:
        return await self._main.call(method, request, answer, definition)


def as_inputs(
    definitions: Mapping[str, ops_pb2.Definition] | None,
) -> dict[str, ops_pb2.Definition]:
    """Definitions as a frontend takes them: with metadata, if empty, for every operation."""
    inputs: dict[str, ops_pb2.Definition] = {}
    for name, definition in (definitions or {}).items():
        inputs[name] = ops_pb2.Definition()
        inputs[name].CopyFrom(definition)
        for operation in getattr(definition, "def"):
            digest = "sha256:" + sha256(operation).hexdigest()
            inputs[name].metadata[digest].SetInParent()
    return inputs


def _definition(ref: gateway_pb2.Ref) -> ops_pb2.Definition | None:
    definition: ops_pb2.Definition = getattr(ref, "def")  # a keyword of Python's
    return definition if ref.HasField("def") else None
