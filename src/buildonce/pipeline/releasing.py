"""Cutting a release: built once, pushed once, signed with all that the checks have left.

A version that the registry already holds, signed by whom this pipeline trusts and with all of its
evidence, is not built again: its image is pulled by digest, and goes through the checks as a new
one would.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ParamSpec, cast

import anyio
import dagger
from dagger import dag

from buildonce.config import Config
from buildonce.pipeline.journal import Journal
from buildonce.release import Image, Release, Revision
from buildonce.release.source import read_origin
from buildonce.report import CheckRecord
from buildonce.stages.sbom import by_content
from buildonce.stages.tasks import tasks

if TYPE_CHECKING:
    from buildonce.release.envelopes import Statement
    from buildonce.release.models import Record
    from buildonce.release.provenance import Build as BuildFacts

P = ParamSpec("P")

Build = Callable[P, Awaitable[dagger.Container]]


class Releasing:
    """What a run knows of its release; one for each run.

    Args:
        looks_up: whether a release of this version may be used. A pull request has none.
    """

    def __init__(
        self, config: Config, revision: Revision, journal: Journal, *, looks_up: bool = True
    ) -> None:
        self._config = config
        self._revision = revision
        self._journal = journal
        self._looks_up = looks_up
        self._looking = anyio.Lock()
        self._looked = False
        self._known: Record | None = None
        self._variants: list[dagger.Container] = []

    def once(self, build: Build[P]) -> Build[P]:
        """The build stage, but for a version that was released already its image.

        Where `[project] platforms` names several, it is built for each of them; what is given on
        is the first.
        """

        @functools.wraps(build)
        async def build_once(*args: P.args, **kwargs: P.kwargs) -> dagger.Container:
            if (known := await self.known()) is not None:
                return await dag.container().from_(known.release.image.reference).sync()
            platforms = self._config.project.platforms
            if not platforms:
                return await build(*args, **kwargs)
            for_platform = cast(Callable[..., Awaitable[dagger.Container]], build)
            built: dict[str, dagger.Container] = {}

            async def build_for(platform: str) -> None:
                built[platform] = await for_platform(*args, platform=platform, **kwargs)

            async with anyio.create_task_group() as group:
                for platform in platforms:
                    group.start_soon(build_for, platform)
            first, *self._variants = (built[platform] for platform in platforms)
            return first

        return build_once

    async def known(self) -> Record | None:
        """The release of this version in the registry, verified; None when there is none.

        Raises:
            Refusal: there is one that is not to be believed, or the registry did not say whether
                there is one.
        """
        async with self._looking:
            if not self._looked and self._looks_up:
                self._known = await self._look_up()
            self._looked = True
        return self._known

    async def _look_up(self) -> Record | None:
        # Here and below, not above: what reads and signs is of no use to a pull request.
        from buildonce.release.store import Store

        async with Store.open(self._config) as store:
            return await store.find(self._revision.version)

    async def cut(
        self, container: dagger.Container, checks: Sequence[CheckRecord]
    ) -> tuple[Release, bool]:
        """Push the image unless it is a released one, sign it and its evidence, record it.

        Args:
            container: what was built.
            checks: whose evidence is signed.

        Returns:
            The release, and whether it is a new one.

        Raises:
            ReleaseConflict: this version was released as something else.
            BuildonceError: it cannot be pushed or signed.
        """
        from buildonce.release.store import Store

        known = await self.known()
        image = known.release.image if known else await self._push(container)
        async with tasks() as group:
            if known is None:
                group.start_soon(self._pull, image)
            statements = await self._statements(checks)
            build = await self._build()
            async with Store.open(self._config, say=self._journal.progress.say) as store:
                record, new = await store.cut(image, statements, build)
        return record.release, new

    async def _pull(self, image: Image) -> None:
        """Have the image in the engine as the next run of this version will: pulled by its digest.

        To unpack it and to know it by content takes seconds, which are free while it is signed.
        """
        pulled = dag.container().from_(image.reference)
        with contextlib.suppress(dagger.QueryError):  # nothing of this run depends on it
            await by_content(pulled.rootfs()).sync()

    async def _push(self, container: dagger.Container) -> Image:
        # A tag so that the registry keeps it; everything after this goes by the digest.
        tag = re.sub(r"[^A-Za-z0-9_.-]", "-", self._revision.version)[:128]
        repository = self._config.project.repository
        reference = await container.publish(
            f"{repository}:{tag}", platform_variants=self._variants or None
        )
        return Image(repository, Image.from_reference(reference).digest)

    async def _statements(self, checks: Sequence[CheckRecord]) -> list[Statement]:
        from buildonce.release.envelopes import Statement

        # A cached result is as true now as when it was found: all it depends on is the same.
        now = datetime.now(UTC)
        evidence = [item for check in checks for item in check.evidence]
        statements: dict[int, Statement] = {}

        async def read(number: int) -> None:
            item = evidence[number]
            text = await item.predicate.contents()
            statements[number] = Statement.parse(item.type, text, name=item.name, created=now)

        async with anyio.create_task_group() as group:
            for number in range(len(evidence)):
                group.start_soon(read, number)
        return [statements[number] for number in sorted(statements)]

    async def _build(self) -> BuildFacts:
        from buildonce.release.provenance import Build as BuildFacts

        config, record = self._config, self._journal.record
        bases: dict[str, str] = {}

        async def resolve(name: str, reference: str) -> None:
            bases[name] = await dag.container().from_(reference).image_ref()

        async with anyio.create_task_group() as group:
            for name, reference in config.images.items():
                group.start_soon(resolve, name, reference)
        return BuildFacts(
            pipeline=config.project.name,
            revision=self._revision,
            origin=await read_origin(self._journal.root),
            configuration=config.digest,
            run=record.run,
            started=record.started,
            bases=dict(sorted(bases.items())),
            parameters={
                "profile": config.profile or "",
                "platforms": list(config.project.platforms),
            },
        )
