"""How a call to an account fails, told apart by what a user can do about it."""

from __future__ import annotations

from buildonce.delivery.errors import DeliveryError, TargetFailed
from buildonce.errors import ExitCode


class AwsRefused(TargetFailed):
    """The service answered, and the answer is no.

    Args:
        service, operation: what was asked: "ecs", "UpdateService".
        code: the service's own code: "AccessDeniedException".
        message: its words.
        where: account and region.
    """

    def __init__(self, service: str, operation: str, code: str, message: str, where: str) -> None:
        self.service, self.operation, self.code, self.reason = service, operation, code, message
        super().__init__(
            f"{service} refused {operation} in {where}: {code}: {message}",
            remedy=_remedy(service, operation, code),
        )


class AwsUnreachable(TargetFailed):
    """There was no answer, or none in time: whether a change was made is unknown."""


class WrongIdentity(DeliveryError):
    """The caller is not who, or not where, the configuration says. Nothing was written."""

    exit_code = ExitCode.USAGE


class NoCredentials(DeliveryError):
    """There are no credentials to begin with, or they are of a kind that is not accepted."""

    exit_code = ExitCode.USAGE


class NotPrepared(DeliveryError):
    """The environment's stacks are not there, or not in a state to deploy to."""


class DeploymentFailed(TargetFailed):
    """The service gave up a deployment by itself: circuit breaker, alarm or a stop."""


_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


def denied(code: str) -> bool:
    """Whether the code says that the caller's permissions do not suffice."""
    return code in _DENIED


def _remedy(service: str, operation: str, code: str) -> str | None:
    if denied(code):
        return (
            f"compare the role with the document that `buildonce env plan ENV --role` prints: it "
            f"must allow {service}:{operation}"
        )
    if code.startswith("ExpiredToken"):
        return "the credentials that this began with have ended: log in anew, then buildonce resume"
    if "Throttling" in code or code in ("TooManyRequestsException", "RequestLimitExceeded"):
        return "the account is at its limit of calls: buildonce resume when others have finished"
    return None
