"""What can go wrong with a registry, and why a release is not believed.

A registry's failure is never an answer: `Absent` is raised only when the registry itself said, in
its own words, that something is not there. Whoever verifies turns every other failure into a
refusal (`EvidenceUnavailable`), so nothing is deployed because a question went unanswered.
"""

from __future__ import annotations

from buildonce.errors import BuildonceError, ExitCode


class RegistryError(BuildonceError):
    """A registry did not do what was asked."""


class RegistryUnreachable(RegistryError):
    """No whole answer came: refused connection, silence, an answer that broke off."""


class BrokenOff(RegistryUnreachable):
    """An answer began and did not end."""


class RegistryRefused(RegistryError):
    """The registry answered with an error.

    Args:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Absent(RegistryError):
    """The registry said, with its own error code, that there is no such thing."""


class Corrupt(RegistryError):
    """What came is not what was asked for: wrong digest, wrong size, or not understandable."""


class Refusal(BuildonceError):
    """A release that must not go on: exit code 4, policy denied."""

    exit_code = ExitCode.POLICY_DENIED


class EvidenceUnavailable(Refusal):
    """The evidence could not be read, so nothing is known; that never counts as good."""


class NotSigned(Refusal):
    """The digest has no signature by anybody who is trusted."""


class EvidenceMissing(Refusal):
    """Evidence that the release record names is not there, or is not to be believed."""


class RecordRefused(Refusal):
    """The release record is not there, not signed, or does not fit its release."""


class ReleaseConflict(Refusal):
    """A version that was released already stands for something else."""
