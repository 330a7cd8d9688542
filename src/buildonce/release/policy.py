"""Whether a release may enter an environment: a pure question to verified evidence.

    decision = evaluate(policy, dossier, release, environment="production", now=now)
    decision.allowed
    for line in decision.lines:
        print(line.what, line.state, line.found, line.wanted, line.remedy)

Nothing is read and nothing is remembered here, so the same question has the same answer anywhere.
Every demand of the policy gives a line or more; only when each of them says "passed" is the release
allowed. What cannot be understood is an error, and an error is a denial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from buildonce.config.policies import WITHOUT_POLICY, PolicyConfig
from buildonce.release.errors import Refusal
from buildonce.release.evidence import Verified
from buildonce.release.models import Record, Release
from buildonce.visible import on_one_line

State = Literal["passed", "failed", "missing", "error"]

_NOTES = 20  # whoever may write to the registry can lay down a thousand things


@dataclass(frozen=True)
class Line:
    """The answer to one demand.

    Args:
        what: the demand: "signature", "test unit_tests", "vulnerabilities".
        state: passed; failed: there, but not good enough; missing: not there; error: there, but it
            cannot be judged.
        found: what is there.
        wanted: what the policy demands.
        remedy: what to do about it; None where it passed.
    """

    what: str
    state: State
    found: str
    wanted: str
    remedy: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the demand is met."""
        return self.state == "passed"

    def __post_init__(self) -> None:
        # It holds what others wrote: names of tests, of packages, of things beside the image.
        object.__setattr__(self, "found", on_one_line(self.found))

    def __str__(self) -> str:
        if self.passed:
            return f"{self.what}: {self.found}"
        return f"{self.what}: {self.state}: {self.found}; wanted: {self.wanted}"


@dataclass(frozen=True)
class Decision:
    """What a policy says to a release.

    Args:
        release: which release.
        environment: where it wants to go.
        policy: name of the policy.
        at: when it was asked.
        lines: the answers; an empty list allows nothing.
        notes: what is worth knowing and changes nothing.
    """

    release: Release
    environment: str
    policy: str
    at: datetime
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether every demand is met."""
        return bool(self.lines) and all(line.passed for line in self.lines)

    @property
    def failing(self) -> tuple[Line, ...]:
        """The lines that deny it."""
        return tuple(line for line in self.lines if not line.passed)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "allowed": self.allowed,
            "environment": self.environment,
            "policy": self.policy,
            "at": self.at.isoformat(),
            "release": self.release.to_json(),
            "lines": [
                {
                    "what": line.what,
                    "state": line.state,
                    "found": line.found,
                    "wanted": line.wanted,
                    "remedy": line.remedy,
                }
                for line in self.lines
            ],
            "notes": list(self.notes),
        }


class PolicyDenied(Refusal):
    """The policy does not let this release in; exit code 4. All lines that deny it are told."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        release = decision.release
        told = [f"  ✗ {line}" for line in decision.failing]
        super().__init__(
            "\n".join(
                [
                    f"the policy {decision.policy!r} keeps {release.version} "
                    f"({release.image.short}) out of {decision.environment}:",
                    *(told or ["  ✗ it has no line that allows anything"]),
                ]
            ),
            remedy=f"buildonce explain {release.version} --for {decision.environment}",
        )


@dataclass(frozen=True)
class Dossier:
    """All that is known about a release.

    Args:
        verified: signatures and attestations; nothing else of the registry is believed.
        record: the verified release record; None when there is none.
        record_problem: why there is none.
        incomplete: what of the image the registry does not have; "" when all of it is there, None
            when nobody looked.
        ran: how long this digest has run in an environment since it succeeded there, by
            environment, as the ledger has it.
        remembered: digests of release statuses that this machine has seen earlier.
    """

    verified: Verified
    record: Record | None = None
    record_problem: str = ""
    incomplete: str | None = None
    ran: Mapping[str, timedelta] = field(default_factory=dict)
    remembered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """A question as the rules see it."""

    policy: PolicyConfig
    dossier: Dossier
    release: Release
    environment: str
    now: datetime


Reason = Literal["deploy", "rollback"]


def evaluate(
    policy: PolicyConfig | None,
    dossier: Dossier,
    release: Release,
    *,
    environment: str,
    now: datetime,
    name: str = "",
    reason: Reason = "deploy",
) -> Decision:
    """Ask a policy about a release; pure.

    Args:
        policy: what is demanded; None: nothing, because the configuration says "none".
        dossier: what is known.
        release: what wants to enter.
        environment: where.
        now: the time by which ages are measured (UTC).
        name: the policy's name, for messages.
        reason: a rollback goes to what was let in before: only that it is this and that nobody
            withdrew it by hand is asked anew, not how old or how good its evidence has become.
    """
    if policy is None:
        line = Line("policy", "passed", 'nothing was looked at: policy = "none"', "nothing")
        return Decision(release, environment, name or WITHOUT_POLICY, now, (line,))
    from buildonce.release.policy_rules import ROLLBACK_RULES, RULES

    rules = RULES if reason == "deploy" else ROLLBACK_RULES
    case = Case(policy, _about(release, dossier), release, environment, now)
    lines = tuple(line for rule in rules for line in rule(case))
    return Decision(release, environment, name, now, lines, tuple(_notes(dossier)))


def _about(release: Release, dossier: Dossier) -> Dossier:
    """Without what speaks of another digest: whoever read the evidence has seen to that already,
    and here nothing may hang on it.
    """
    verified = dossier.verified
    own = tuple(item for item in verified.attestations if item.subject == release.image.digest)
    return replace(dossier, verified=replace(verified, attestations=own))


def _notes(dossier: Dossier) -> Iterator[str]:
    refused = dossier.verified.refused
    for item in refused[:_NOTES]:
        yield on_one_line(f"{item.what} that is not believed: {item.message}")
    if len(refused) > _NOTES:
        yield f"{len(refused) - _NOTES} more things beside the image are not believed"
