"""How a deployment can fail, told apart so that a caller can act on it.

try:
    await deploy(release, environment, ...)
except RolledBack as failure:        # exit code 3: the previous release answers again
    print(failure.cause, failure.restored)
"""

from __future__ import annotations

from buildonce.errors import BuildonceError, ExitCode


class DeliveryError(BuildonceError):
    """Something about an environment or its target is wrong."""


class TargetFailed(DeliveryError):
    """A part of the target (container runtime, proxy, registry) did not do what it was asked."""


class NotHealthy(DeliveryError):
    """The new release started but did not become healthy in time, or ended by itself."""


class WrongDigest(DeliveryError):
    """What the runtime holds, or what answers, is not the artifact that was asked for."""


class ManifestLost(DeliveryError):
    """The configuration of an earlier deployment cannot be brought back: its record is gone."""


class SmokeFailed(DeliveryError):
    """A smoke test of the environment failed; raise it from a smoke callback to roll back."""


class Breached(DeliveryError):
    """A watch is in breach while a release is being proven.

    Args:
        environment, watch: where, and which.
        why: what it saw.
    """

    def __init__(self, environment: str, watch: str, why: str) -> None:
        self.watch = watch
        self.why = why
        super().__init__(f"{watch} is in breach: {why}", remedy=f"buildonce history {environment}")


class Unclear(DeliveryError):
    """Whether the release does well could not be told, and the rollout does not go on without."""

    exit_code = ExitCode.INCONCLUSIVE


class WindowClosed(DeliveryError):
    """The environment may not be deployed to at this time; the message says until when."""

    exit_code = ExitCode.POLICY_DENIED


class OutOfOrder(DeliveryError):
    """The release does not run yet in the environment that comes before."""

    exit_code = ExitCode.USAGE


class EnvironmentBusy(DeliveryError):
    """Another process is deploying to the environment; the message names it."""


class ApprovalRefused(DeliveryError):
    """Somebody refused this release for this environment."""

    exit_code = ExitCode.POLICY_DENIED


class UnknownRelease(DeliveryError):
    """The ledger knows no such release, or none to go back to."""

    exit_code = ExitCode.USAGE


class RolledBack(DeliveryError):
    """A deployment failed and the environment is back on what ran before.

    Args:
        environment: its name.
        cause: what failed, one sentence.
        restored: version that answers again; None when nothing had run there.
        unclear: nothing was found wrong, but not enough was seen: exit code 5.
    """

    exit_code = ExitCode.ROLLED_BACK

    def __init__(
        self,
        environment: str,
        cause: str,
        *,
        restored: str | None,
        remedy: str | None = None,
        unclear: bool = False,
    ) -> None:
        self.environment = environment
        self.cause = cause
        self.restored = restored
        if unclear:
            self.exit_code = ExitCode.INCONCLUSIVE
        now = f"{restored} answers again" if restored else "nothing ran there before, nothing runs"
        super().__init__(
            f"the deployment to {environment} was rolled back ({now}): {cause}", remedy=remedy
        )


class RollbackFailed(DeliveryError):
    """A deployment failed, and so did putting the previous release back; both causes are named."""


class NotFinished(RollbackFailed):
    """The new release is proven and has all traffic, but the rollout could not be ended."""
