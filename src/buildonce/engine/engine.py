"""The engine of one session: recipes become states, states become results.

Lowering a recipe to a state only describes; asking for an output's reference runs what it needs.
Both are done once a session however often and however concurrently they are asked for: the first
asker starts it, the others wait for the same answer, and an asker that goes away takes nothing
with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, TypeVar

from buildonce.engine import inspection, llb, operations, owners
from buildonce.engine.buildkit import (
    Build,
    Client,
    Export,
    Image,
    PathNotFound,
    ResolvedImage,
    Result,
    Session,
    SolveError,
    Stat,
)
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.errors import NotServed, QueryFailed
from buildonce.engine.exports import Exports
from buildonce.engine.faults import clean, explain, with_image
from buildonce.engine.fileops import Owner
from buildonce.engine.giving_way import GivingWay
from buildonce.engine.llb import Expected, Output
from buildonce.engine.options import EngineOptions
from buildonce.engine.paths import owner_of
from buildonce.engine.recipe import Recipe, Recipes
from buildonce.engine.scratch import Scratch
from buildonce.engine.secrets import SecretStore
from buildonce.engine.services import Services
from buildonce.engine.states import SecretState
from buildonce.engine.steps import Steps
from buildonce.engine.uploads import Uploads
from buildonce.errors import BuildonceError

T = TypeVar("T")
SMALL = 64 << 10  # bytes of a file that is kept to be asked for again
SMALL_TOGETHER = 64 << 20
READ_CHUNK = 4 << 20  # bytes a read; gRPC's messages end at 16 MiB


class Engine:
    """Everything one session shares; operations get it as their first argument."""

    def __init__(
        self,
        client: Client,
        session: Session,
        build: Build,
        options: EngineOptions,
        *,
        platform: str,
        secrets: SecretStore,
        uploads: Uploads,
        shim: Output,
        own_networks: bool,
        network_reason: str,
        routed: bool,
        steps: Steps,
    ) -> None:
        self.client = client
        self.session = session
        self.build = build
        self.options = options
        self.platform = platform
        self.secrets = secrets
        self.uploads = uploads
        self.shim = shim
        self.own_networks = own_networks
        self.network_reason = network_reason
        self.routed = routed
        self.steps = steps
        self._imports = options.remote_cache.imports() if options.remote_cache else []
        self._exports_cache = options.remote_cache is not None and options.remote_cache.export
        self._scratch = Scratch()
        self.services = Services(self)
        self.giving_way = GivingWay(self)
        self.exports = Exports(self)
        self.credentials: dict[str, tuple[str, SecretState]] = {}
        self.recipes = Recipes()
        self._states: dict[str, Any] = {}
        self._references: dict[Output, str] = {}
        self._files: dict[tuple[Output | None, str], bytes] = {}
        self._small = 0
        self._remembered: dict[Any, Any] = {}
        self._running: dict[Any, asyncio.Task[Any]] = {}

    # -- recipes to states ------------------------------------------------------------------

    async def lower(self, recipe: Recipe) -> Any:
        """The state of a recipe's object.

        Raises:
            QueryFailed: an argument is wrong, or what it names is not there.
        """
        # From the outermost ancestor inwards, in a loop: a chain may be thousands long.
        missing: list[Recipe] = []
        current: Recipe | None = recipe
        while current is not None and current.digest not in self._states:
            missing.append(current)
            current = current.parent
        for item in reversed(missing):
            await self._lower_one(item)
        return self._states[recipe.digest]

    async def _lower_one(self, recipe: Recipe) -> None:
        if recipe.digest in self._states:
            return
        if recipe.type == "Query":
            self._states[recipe.digest] = None
            return
        parent_type = recipe.parent.type if recipe.parent else "Query"
        coordinate = f"{parent_type}.{recipe.field}"
        function = operations.find(coordinate)
        if function is None:
            raise NotServed(coordinate)
        if iscoroutinefunction(function):
            self._states[recipe.digest] = await self.once(
                ("lower", recipe.digest), lambda: self.call(function, recipe.parent, recipe.args)
            )
        else:
            self._states[recipe.digest] = await self.call(function, recipe.parent, recipe.args)

    async def call(
        self, function: Callable[..., Any], parent: Recipe | None, args: Mapping[str, Any]
    ) -> Any:
        """Call an operation with the states of its object and of its arguments."""
        self_state = await self.lower(parent) if parent is not None else None
        values = {operations.snake_case(k): await self._argument(v) for k, v in args.items()}
        answer = function(self, self_state, **values)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _argument(self, value: Any) -> Any:
        if isinstance(value, Recipe):
            return await self.lower(value)
        if isinstance(value, list):
            return [await self._argument(item) for item in value]
        return value

    def adopt(self, recipe: Recipe, state: Any) -> Recipe:
        """Give a recipe its state directly, for objects that come in lists."""
        self._states[recipe.digest] = state
        return recipe

    async def once(self, key: Any, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` unless the same is under way, in which case wait for that."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: Any, task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody waiting is not worth a warning

    async def close(self) -> None:
        """End what is still under way."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.services.close()
        if self.options.remote_cache is not None:
            await self.options.remote_cache.write(self.build, self._references)
        self._scratch.close()

    # -- states to results ------------------------------------------------------------------

    async def reference(self, output: Output | None) -> str:
        """Run what `output` needs and answer its reference; scratch is the empty string.

        Raises:
            ExecFailed: a command ended with an exit code that was not expected.
            QueryFailed: anything else that went wrong, in BuildKit's words.
        """
        if output is None:
            return ""
        key = (output.vertex.digest, output.index)
        if output not in self._references:
            self._references[output] = await self.once(key, lambda: self._solve(output))
        return self._references[output]

    def as_run(self, output: Output | None) -> pb.Definition:
        """The graph of an output that was asked for, as it was run."""
        return llb.marshal(output and self.giving_way.applied(output))

    async def _solve(self, asked: Output) -> str:
        output = self.giving_way.applied(asked)
        vertices = list(llb.walk([output]))
        self.steps.asked_for([vertex.digest for vertex in vertices])
        expected = {e for vertex in vertices for e in vertex.expects}
        definition = llb.marshal(output)
        async with self.services.in_use(output) as bonds:
            try:
                solving = self.build.solve(
                    definition, cache_imports=self._imports, retry=not self._exports_cache
                )
                result = await self.services.unless_lost(bonds, solving)
            except BuildonceError as error:
                if isinstance(error, SolveError) and error.exit_status is None:
                    if await self.giving_way.cleared(error, output):
                        return await self._solve(asked)
                    # What was expected may be why, and it is told in the user's words.
                    await self._expect_all(expected)
                raise await explain(self, error, output) from error
        await self._expect_all(expected)
        return result.ref

    async def _expect_all(self, expected: Iterable[Expected]) -> None:
        await asyncio.gather(*map(self.expect, expected))

    async def read(self, output: Output | None, path: str, *, limit: int | None = None) -> bytes:
        """The content of a file.

        Args:
            limit: refuse a larger file, in bytes.
        """
        kept = self._files.get((output, path))
        if kept is not None and (limit is None or len(kept) <= limit):
            return kept
        stat = await self.stat(output, path)
        if limit is not None and stat.size > limit:
            raise QueryFailed(f"{path} has {stat.size} bytes, more than the {limit} allowed here")
        reference = await self.reference(output)
        parts: list[bytes] = []
        while (done := sum(map(len, parts))) < stat.size:
            size = min(READ_CHUNK, stat.size - done)
            part = await self._ask(path, output, self.build.read_file(reference, path, done, size))
            if not part:
                break
            parts.append(part)
        data = b"".join(parts)
        if len(data) <= SMALL and self._small < SMALL_TOGETHER:
            self._files[output, path] = data
            self._small += len(data) + len(path)
        return data

    async def stat(self, output: Output | None, path: str) -> Stat:
        """What is at `path`: size, mode, kind.

        Raises:
            QueryFailed: nothing is there.
        """
        if output is None:
            raise QueryFailed(f"{path}: no such file or directory")
        reference = await self.reference(output)
        return await self._ask(path, output, self.build.stat_file(reference, path))

    async def entries(self, output: Output | None, path: str) -> Sequence[Stat]:
        """What a directory holds, one level deep, by name."""
        if output is None:
            return ()
        reference = await self.reference(output)
        return await self._ask(path, output, self.build.read_dir(reference, path))

    async def exists(
        self, output: Output | None, path: str, kind: str | None, *, follow: bool
    ) -> bool:
        """Whether something, of that kind (`REGULAR_TYPE`, `DIRECTORY_TYPE`, …), is at `path`."""
        return await inspection.exists(self, output, path, kind, follow=follow)

    async def expect(self, expected: Expected) -> None:
        """Make sure that a directory, a file, or nothing is where that is expected.

        Raises:
            QueryFailed: something else is.
        """
        await self.remember(expected, lambda: self._expect(expected))

    async def _expect(self, expected: Expected) -> None:
        output, path, shown = expected.output, expected.path, expected.shown
        await self.reference(output)
        if expected.directory is None:
            if await self._occupied(output, path):
                raise QueryFailed(f"{shown}: file exists")
            return
        if path == "/" and expected.directory:
            return
        try:
            found = await self.stat(output, path)
        except QueryFailed as error:
            raise QueryFailed(f"stat {shown}: no such file or directory") from error
        if expected.directory and not found.is_dir:
            raise QueryFailed(f"path {shown} is a file, not a directory")
        if not expected.directory and found.is_dir:
            raise QueryFailed(f"path {shown} is a directory, not a file")

    async def _occupied(self, output: Output | None, path: str) -> bool:
        """Whether anything is there, a link that leads nowhere too."""
        folder, _, name = path.rpartition("/")
        try:
            return any(one.path == name for one in await self.entries(output, folder or "/"))
        except QueryFailed:
            return False

    async def numeric_owner(self, rootfs: Output | None, owner: str) -> str:
        """`user[:group]` as numbers, names looked up in the root file system."""
        return await owners.numeric(self, rootfs, owner)

    async def owner(self, rootfs: Output | None, owner: str) -> Owner | None:
        """`user[:group]` as the owner of a file action; None when nobody is named."""
        return owner_of(await self.numeric_owner(rootfs, owner), None)

    async def resolve_image(self, reference: str, platform: str) -> ResolvedImage:
        """The digest and configuration that an image reference stands for now."""
        key = ("image", reference, platform)
        return await self.remember(key, lambda: self._resolve_image(reference, platform))

    async def remember(self, key: Any, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of `work`, which is done once a session."""
        if key not in self._remembered:
            self._remembered[key] = await self.once(key, work)
        answer: T = self._remembered[key]
        return answer

    async def _resolve_image(self, reference: str, platform: str) -> ResolvedImage:
        try:
            return await self.build.resolve_image(reference, platform=platform)
        except BuildonceError as error:
            raise QueryFailed(f"failed to resolve image {reference}: {error.message}") from error

    async def frontend(
        self,
        name: str,
        attributes: Mapping[str, str],
        inputs: Mapping[str, pb.Definition],
        *,
        shown: str,
    ) -> Result:
        """What a frontend makes of its inputs: a graph and an image's configuration, not yet run.

        Raises:
            QueryFailed: it refused them, such as a Dockerfile with a mistake.
        """
        try:
            return await self.build.solve(
                frontend=name, frontend_attrs=attributes, frontend_inputs=inputs, evaluate=False
            )
        except SolveError as error:
            raise QueryFailed(f"{shown}: {clean(error.message)}") from error

    async def export(
        self, results: Sequence[tuple[str, pb.Definition, bytes]], export: Export
    ) -> dict[str, str]:
        """Hand images to an exporter.

        Args:
            results: (platform, root file system, configuration) of each; several make an index.
        """
        try:
            if len(results) > 1:
                images = [Image(*result) for result in results]
                return await self.client.export_index(
                    images, self.session, export, on_status=self.steps.update
                )
            [(_, definition, config)] = results
            attributes = {**export.attrs, "containerimage.config": config.decode()}
            return await self.client.solve(
                definition,
                self.session,
                exports=[Export(export.type, attributes, export.receiver)],
                on_status=self.steps.update,
            )
        except BuildonceError as error:
            where = f"failed to push {export.attrs['name']}: " if "push" in export.attrs else ""
            message = clean(error.message)
            raise QueryFailed(where * (not message.startswith(where)) + message) from error

    def scratch_folder(self) -> Path:
        """A private folder that lives as long as the session."""
        return self._scratch.folder()

    async def _ask(self, path: str, output: Output | None, question: Awaitable[T]) -> T:
        try:
            return await question
        except PathNotFound as error:
            raise QueryFailed(f"{path}: no such file or directory") from error
        except BuildonceError as error:  # also of an image that is pulled now, for this
            raise QueryFailed(with_image(clean(error.message), output)) from error
