"""The releases of a project, where they are kept: its registry. What a pipeline and commands use.

async with Store.open(config, say=print) as store:
    if (record := await store.find(revision.version)) is None:
        record, _ = await store.cut(image, evidence, build)
    await store.verify(record)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from buildonce.config import Config
from buildonce.config.signing import LOCAL
from buildonce.errors import BuildonceError, ExitCode
from buildonce.release.descriptors import DIGEST
from buildonce.release.envelopes import Statement
from buildonce.release.errors import EvidenceUnavailable, RecordRefused, RegistryError
from buildonce.release.evidence import Trust, Verified
from buildonce.release.keys import machine_pair, own_trust
from buildonce.release.models import Image, Record
from buildonce.release.provenance import Build, provenance
from buildonce.release.record import (
    RECORD_TYPE,
    REVISION_PREFIX,
    cut_release,
    find_record,
    list_records,
    verify_record,
)
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer

Say = Callable[[str], None]


class NoSuchRelease(BuildonceError):
    """There is no release of that name."""

    exit_code = ExitCode.USAGE


class Store:
    """The releases in one repository; made by `open`.

    Attributes:
        registry: the client.
        repository: "host:port/name".
    """

    def __init__(
        self, config: Config, registry: Registry, *, repository: str, trust: Trust | None, say: Say
    ) -> None:
        self.registry = registry
        self.repository = repository
        self._config = config
        self._trust = trust
        self._say = say

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Config,
        *,
        repository: str | None = None,
        trust: Trust | None = None,
        say: Say = lambda _: None,
    ) -> AsyncIterator[Store]:
        """The releases of a project.

        Args:
            config: the project's configuration.
            repository: where to look in place of the project's repository: after a promotion.
            trust: whose signatures count; what `[signing]` makes by default.
            say: called with lines for people.
        """
        async with Registry() as registry:
            yield cls(
                config,
                registry,
                repository=repository or config.project.repository,
                trust=trust,
                say=say,
            )

    @property
    def trust(self) -> Trust:
        """Whose signatures count.

        Raises:
            BuildonceError: a public key is not there.
        """
        if self._trust is None:
            self._trust = own_trust(self._config)
        return self._trust

    async def find(self, version: str) -> Record | None:
        """The release of a version, with all its evidence there and signed; None: there is none.

        Raises:
            Refusal: there is one, and something of it is not to be believed.
        """
        if self._no_key_yet():
            return None
        record = await find_record(
            self.repository, version=version, trust=self.trust, registry=self.registry
        )
        if record is not None:
            await self.verify(record)
        return record

    async def cut(
        self, image: Image, statements: Sequence[Statement], build: Build
    ) -> tuple[Record, bool]:
        """Sign an image and its evidence, provenance included, and record it as a release.

        Args:
            image: what was pushed.
            statements: what the checks left.
            build: where the image comes from.

        Returns:
            The release, and whether it is a new one: the same again changes nothing.

        Raises:
            ReleaseConflict: the version was released, and was something else.
            BuildonceError: it could not be signed or stored.
        """
        signer = await Signer.configured(self._config, say=self._say)
        self._trust = self._trust or signer.trust
        known = await find_record(
            self.repository,
            version=build.revision.version,
            trust=signer.trust,
            registry=self.registry,
        )
        # An image is built once: where it was released, its provenance stands.
        origin = [] if known else [provenance(build)]
        return await cut_release(
            image,
            [*statements, *origin],
            version=build.revision.version,
            revision=build.revision.commit,
            configuration=build.configuration,
            signer=signer,
            registry=self.registry,
            source=build.origin.address,
            run=build.run,
            committed=build.revision.committed,
            say=self._say,
        )

    async def verify(self, record: Record) -> Verified:
        """Make sure that all of a release is there and signed.

        Raises:
            Refusal: it is not; each way has its own error and message.
        """
        return await verify_record(record, trust=self.trust, registry=self.registry)

    async def list(self, *, limit: int = 20) -> list[Record | RecordRefused]:
        """The newest releases, newest first; those not to be believed as their errors."""
        return await list_records(
            self.repository, trust=self.trust, registry=self.registry, limit=limit
        )

    async def get(self, name: str) -> Record:
        """A release as people name it.

        Args:
            name: a version, a commit (7 digits or more), an image's digest, or "latest".

        Raises:
            NoSuchRelease: there is none.
            Refusal: there is one, and its record is not to be believed; or the registry did not
                answer, and nothing is known.
        """
        try:
            record = await self._get(name)
        except RegistryError as error:
            raise EvidenceUnavailable(
                f"the release {name} could not be looked up, so nothing is known of it: "
                f"{error.message}",
                remedy=error.remedy,
            ) from None
        if record is None:
            raise NoSuchRelease(
                f"{self.repository} has no release {name!r}", remedy="buildonce release list"
            )
        return record

    async def _get(self, name: str) -> Record | None:
        find = {"trust": self.trust, "registry": self.registry}
        if name == "latest":
            found = await self.list(limit=1)
            for item in found:
                if isinstance(item, RecordRefused):
                    raise item
                return item
            return None
        if DIGEST.fullmatch(name):
            return await self._by_image(name)
        lowered = name.lower()
        if len(lowered) >= 7 and all(c in "0123456789abcdef" for c in lowered):
            tags = await self.registry.tags(self.repository)
            start = REVISION_PREFIX + lowered
            matching = [tag for tag in tags if tag.startswith(start)]
            if len(matching) > 1:
                raise NoSuchRelease(f"{name} is the beginning of {len(matching)} commits")
            if matching:
                revision = matching[0].removeprefix(REVISION_PREFIX)
                return await find_record(self.repository, revision=revision, **find)  # type: ignore[arg-type]
        try:
            return await find_record(self.repository, version=name, **find)  # type: ignore[arg-type]
        except ValueError:
            return None

    async def _by_image(self, digest: str) -> Record | None:
        referrers = await self.registry.referrers(
            self.repository, digest, artifact_type=RECORD_TYPE
        )
        for item in referrers:
            record = await find_record(
                self.repository, digest=item.digest, trust=self.trust, registry=self.registry
            )
            if record is not None and record.release.image.digest == digest:
                return record
        return None

    def _no_key_yet(self) -> bool:
        """Nothing was ever signed here, so no release can be one of ours."""
        return (
            self._trust is None
            and self._config.signing.key == LOCAL
            and self._config.signing.public_key is None
            and not machine_pair(self._config.project.name).public.exists()
        )
