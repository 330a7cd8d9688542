"""The set-up of this machine: its steps, and the memory that it was done.

setup = Setup.here()
outcomes = await run_steps(setup.steps(), report)
setup.remember(...)                # the next `setup` then only looks whether all still lives
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import anyio

from buildonce import places
from buildonce.toolchain import base_image, binaries, containers, golang, network, packages
from buildonce.toolchain.processes import Progress
from buildonce.toolchain.registry import LoopbackRegistry
from buildonce.toolchain.steps import Outcome, Step
from buildonce.toolchain.table import GO_MODULES, OWN_MODULES
from buildonce.toolchain.tool_images import ToolImage, serves, tool_images
from buildonce.toolchain.whole import write_whole

PROFILE_VARIABLE = "BUILDONCE_PROFILE"


@dataclass(frozen=True)
class Memory:
    """What the last successful set-up left.

    Args:
        key: digest of everything the set-up depends on.
        profile: "offline" or "" (the public images).
        paths: files that must still be there.
    """

    key: str
    profile: str
    paths: tuple[str, ...]


@dataclass
class Setup:
    """The set-up for the project in the current folder.

    Args:
        images: the public images that the project's configuration names.
    """

    images: list[str]
    registry: LoopbackRegistry
    profile: str | None = None
    _runtime: containers.ContainerRuntime | None = field(default=None, repr=False)

    @classmethod
    def here(cls, pipeline_toml: Path | None = None) -> Setup:
        """The set-up for the project in the current folder (or of `pipeline_toml`)."""
        configuration = pipeline_toml or Path("ci/pipeline.toml")
        return cls(network.configured_images(configuration), LoopbackRegistry.configured())

    @property
    def base_reference(self) -> str:
        return f"{self.registry.address}/{base_image.NAME}"

    def remembered(self) -> Memory | None:
        """The last set-up, if nothing it depends on has changed and its parts still live.

        A few milliseconds: files are looked at, the registry is asked, nothing is run.
        """
        memory = self._memory()
        if memory is None or memory.key != self._key():
            return None
        if not all(Path(path).exists() for path in memory.paths):
            return None
        if not self.registry.status().running:
            return None
        if memory.profile == network.OFFLINE:
            images = self._tool_images
            if not (self._base_image_is_served() and all(image.served() for image in images)):
                return None
        return memory

    def remember(self) -> None:
        """Keep that the set-up has succeeded."""
        paths = [str(found.path) for name in binaries.programs() if (found := _found(name))]
        if self._runtime is not None:
            paths.append(self._runtime.command[0])
        memory = Memory(self._key(), self.profile or "", tuple(sorted(set(paths))))
        write_whole(self._file(), json.dumps(asdict(memory), indent=1))

    def forget(self) -> None:
        """Make the next set-up look at everything anew."""
        self._file().unlink(missing_ok=True)

    def steps(self) -> list[Step]:
        """Every step; those that are not after one another may run side by side."""
        steps = [
            Step("network", _never, self._decide_profile),
            Step("packages", self._packages_there, self._install, after=("network",)),
        ]
        # One build after the other: each keeps all processors busy.
        before: tuple[str, ...] = ()
        for module in GO_MODULES:
            unwanted = self._scanners_unwanted if module.in_containers else _never
            # The network decides whether the scanners are to be built at all.
            first = ("network", *before) if module.in_containers else before
            steps.append(_binaries(module.name, tuple(module.packages), first, unwanted))
            before = (module.name,)
        for own in OWN_MODULES:
            if (own.folder / "go.mod").is_file():
                steps.append(_binaries(own.name, (own.name,), before, _never))
                before = (own.name,)
        return [
            *steps,
            Step("build caches", self._no_build_caches, self._drop_build_caches, after=before),
            Step("container runtime", _never, self._find_runtime, after=("packages",)),
            Step("registry", self._registry_runs, self._start_registry, after=("packages",)),
            Step("base image", self._image_made, self._make_image, after=("packages",)),
            Step(
                "image in registry",
                self._image_served,
                self._serve_image,
                after=("base image", "registry"),
            ),
            Step(
                "scanner images",
                self._scanners_served,
                self._serve_scanners,
                after=("registry", *(m.name for m in GO_MODULES if m.in_containers)),
            ),
            Step(
                "a container runs",
                self._nothing_to_try,
                self._try_container,
                after=("image in registry", "container runtime"),
            ),
        ]

    async def _decide_profile(self, progress: Progress) -> str:
        if (chosen := os.environ.get(PROFILE_VARIABLE)) is not None:
            self.profile = chosen
            return f"profile {chosen or 'default'}, from {PROFILE_VARIABLE}"
        hosts = network.registry_hosts(self.images or ["docker.io/library/python"])
        progress(f"asking {', '.join(hosts)}")
        missing = await network.unreachable(hosts)
        self.profile = network.OFFLINE if missing else ""
        if missing:
            return (
                f"{', '.join(missing)} cannot be reached: profile offline "
                "(the base image is made from Debian packages)"
            )
        return f"{', '.join(hosts)} can be reached: public images"

    @property
    def _offline(self) -> bool:
        return self.profile == network.OFFLINE

    async def _needs(self) -> list[packages.Need]:
        docker = await containers.docker_answers() is not None
        return await anyio.to_thread.run_sync(
            partial(packages.needed, offline=self._offline, docker=docker)
        )

    async def _packages_there(self) -> str | None:
        return None if await self._needs() else "all there"

    async def _install(self, progress: Progress) -> str:
        return await packages.install(await self._needs(), progress=progress)

    async def _no_build_caches(self) -> str | None:
        return None if (places.cache() / "go" / "mod").is_dir() else "none kept"

    async def _drop_build_caches(self, _progress: Progress) -> str:
        await golang.forget_caches()
        return "being removed: the programs are built"

    async def _find_runtime(self, _progress: Progress) -> str:
        self._runtime = await containers.runtime()
        changed = ", with a containers.conf of ours" if self._runtime.env else ""
        return f"{self._runtime.name} {self._runtime.version}{changed}"

    async def _registry_runs(self) -> str | None:
        status = self.registry.status()
        return f"answers at {status.address}" if status.running else None

    async def _start_registry(self, progress: Progress) -> str:
        status = await self.registry.up(progress=progress)
        return f"answers at {status.address}, data in {status.data}"

    async def _image_made(self) -> str | None:
        if not self._offline:
            return "not wanted: public images can be pulled"
        return "in the cache" if base_image.made() else None

    async def _make_image(self, progress: Progress) -> str:
        return f"made in {await base_image.make(progress=progress)}"

    async def _image_served(self) -> str | None:
        if not self._offline:
            return "not wanted"
        return self.base_reference if self._base_image_is_served() else None

    async def _serve_image(self, progress: Progress) -> str:
        digest = await base_image.publish(self.base_reference, progress=progress)
        return f"{self.base_reference} is {digest[:19]}"

    @property
    def _tool_images(self) -> list[ToolImage]:
        return tool_images(self.registry.address)

    async def _scanners_unwanted(self) -> str | None:
        return None if self._offline else "not wanted: their images can be pulled"

    async def _scanners_served(self) -> str | None:
        if (unwanted := await self._scanners_unwanted()) is not None:
            return unwanted
        images = self._tool_images
        if not all(image.served() for image in images):
            return None
        return ", ".join(image.reference for image in images)

    async def _serve_scanners(self, progress: Progress) -> str:
        for image in self._tool_images:
            await image.publish(progress=progress)
        return ", ".join(image.reference for image in self._tool_images)

    async def _nothing_to_try(self) -> str | None:
        return None if self._offline else "not tried: that would pull an image"

    async def _try_container(self, progress: Progress) -> str:
        using = self._runtime or await containers.runtime()
        progress(f"running `true` in {self.base_reference}")
        await containers.prove(using, self.base_reference)
        return f"{using.name} runs {self.base_reference}"

    def _base_image_is_served(self) -> bool:
        layout = base_image.made()
        return layout is not None and serves(self.base_reference, layout)

    def _key(self) -> str:
        """Everything that would make a set-up do something else."""
        folders = [module.folder for module in GO_MODULES] + [own.folder for own in OWN_MODULES]
        sources = {
            str(file): hashlib.sha256(file.read_bytes()).hexdigest()
            for folder in folders
            for file in sorted(folder.glob("*"))
            if file.is_file()
        }
        variables: Mapping[str, str] = {
            name: value for name, value in os.environ.items() if name.startswith("BUILDONCE_")
        }
        facts = [repr(GO_MODULES), sources, dict(sorted(variables.items())), os.geteuid()]
        facts += [sorted(self.images), base_image.NAME, base_image.key()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _memory(self) -> Memory | None:
        try:
            memory = Memory(**json.loads(self._file().read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return memory

    @staticmethod
    def _file() -> Path:
        return places.cache() / "setup.json"


def _binaries(
    name: str,
    wanted: tuple[str, ...],
    after: tuple[str, ...],
    unwanted: Callable[[], Awaitable[str | None]],
) -> Step:
    async def done() -> str | None:
        if (why := await unwanted()) is not None:
            return why
        there = [_found(program) for program in wanted]
        if not all(there):
            return None
        return ", ".join(
            f"{program} {found.version} ({found.origin})".replace("  ", " ")
            for program, found in zip(wanted, there, strict=True)
            if found
        )

    async def do(progress: Progress) -> str:
        for program in wanted:
            await binaries.ensure(program, progress=progress)
        return f"{', '.join(wanted)} built"

    return Step(name, done, do, after=after)


def _found(name: str) -> binaries.Found | None:
    return binaries.find(name)


async def _never() -> str | None:
    return None


def failures(outcomes: list[Outcome]) -> list[Outcome]:
    """Those that did not end well."""
    return [outcome for outcome in outcomes if not outcome.well]
