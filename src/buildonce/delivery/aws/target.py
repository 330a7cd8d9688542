"""What every target in an account has in common: its stack, its watches, its registry, waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from buildonce.config import EnvironmentConfig
from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.alarms import watches_of
from buildonce.delivery.aws.outputs import Outputs, read_outputs, stack_name
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.errors import DeliveryError, NotHealthy
from buildonce.delivery.target import Candidate, Manifest, Step
from buildonce.delivery.watch import Watch
from buildonce.release import Release

_FIRST_LOOK, _LAST_LOOK = 0.5, 10.0
"""Seconds between two looks at something that AWS is doing: few at first, more with time."""

Carry = Callable[[Release, EnvironmentConfig, AwsSession], Awaitable[None]]
"""Brings a release and its evidence into an environment's registry, and verifies them there."""


class AwsTarget:
    """An environment in an account; what runs releases there is the business of its kinds.

    Args:
        environment: a place of one region.
        project: whose environment it is.
        aws: the session in its account and region.
        carry: brings releases into the environment's own registry, where it has one.
    """

    fence = 0
    native = False

    def __init__(
        self,
        environment: EnvironmentConfig,
        *,
        project: str,
        aws: AwsSession,
        carry: Carry | None = None,
    ) -> None:
        self.environment = environment
        self.aws = aws
        self.name = f"{project}-{environment.name}"
        self._stack = stack_name(project, environment.name, "service")
        self._carry = carry
        self._outputs: Outputs | None = None

    def fingerprint(self, release: Release, manifest: Manifest | None = None) -> str:
        return tasks.fingerprint(release, self.environment, manifest)

    @property
    def back_within(self) -> float:
        """Seconds in which the previous release is back; services take minutes to drain."""
        return 600.0

    async def url(self) -> str:
        return self.environment.address or (await self.outputs())["Url"]

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        names = self._outputs.listed("Alarms") if self._outputs else ()
        return watches_of(self.aws, self.environment, names=names)

    async def counts(self, candidate: Candidate) -> None:
        """Not counted: CloudWatch tells of answers minutes later."""

    async def outputs(self) -> Outputs:
        """What the environment's stack says; read once."""
        if self._outputs is None:
            self._outputs = await read_outputs(
                self.aws, self._stack, environment=self.environment.name
            )
        return self._outputs

    async def fetch(self, release: Release, step: Step) -> None:
        """The image and its evidence are where this environment takes them from.

        Raises:
            Refusal: a piece is missing there, or is not believed there.
            DeliveryError: the environment has a registry, and nobody who would fill it.
        """
        await self.outputs()  # without a stack there is no need for an image
        reference = tasks.deployed_image(release, self.environment).reference
        async with step("pull", reference=reference):
            if self.environment.registry is None:
                return
            if self._carry is None:
                raise DeliveryError(
                    f"{self.environment.name} takes its images from {self.environment.registry}, "
                    "and nobody brings them there",
                    remedy="give `carry=` to open_target, as buildonce's own commands do",
                )
            await self._carry(release, self.environment, self.aws)

    async def until(
        self, look: Callable[[], Awaitable[bool]], what: str, *, patience: float, remedy: str
    ) -> None:
        """Look again and again until it is so.

        Args:
            look: whether it is.
            what: is awaited, for the message.
            patience: seconds after which it is no longer awaited.
            remedy: what to type then.

        Raises:
            NotHealthy: it was not so in time.
        """
        began, pause = self.aws.clock.monotonic(), _FIRST_LOOK
        while not await look():
            if self.aws.clock.monotonic() - began > patience:
                raise NotHealthy(
                    f"{what} in {self.aws.where} did not come about within {patience:g} s",
                    remedy=remedy,
                )
            await self.aws.clock.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)
