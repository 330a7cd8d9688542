"""Asking an environment's policy about a release: reading what is known, and saying no.

    decision = await examine(release, "production", config=config, ledger=ledger, registry=registry)

    verify = verifier(config, ledger=ledger, run=run)       # for `delivery.deploy(verify=…)`
    await verify(release, environment)                      # PolicyDenied, or it may go in

Everything is read anew from the registry that the release is deployed from; what this run or an
earlier one found out itself counts for nothing. Where the registry does not answer, nothing is
known, and nothing is let in: that is neither "absent" nor "passed" (decision 0006).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from buildonce import predicates
from buildonce.config import Config, EnvironmentConfig
from buildonce.config.policies import PolicyConfig
from buildonce.ledger import Ledger, Rollout
from buildonce.release.errors import (
    Absent,
    EvidenceUnavailable,
    RecordRefused,
    Refusal,
    RegistryError,
)
from buildonce.release.evidence import Identity, Trust, Verified, read_evidence
from buildonce.release.keys import own_trust, read_public_key
from buildonce.release.models import Record, Release
from buildonce.release.parts import parts_of
from buildonce.release.policy import Decision, Dossier, PolicyDenied, Reason, evaluate
from buildonce.release.policy_status import read_statuses
from buildonce.release.record import find_record
from buildonce.release.registry import Registry

Verify = Callable[[Release, EnvironmentConfig], Awaitable[None]]
"""What `delivery` calls before the first write to an environment."""

ANSWER = "let the registry answer, then type this again; the release may well be good"
_ROLLOUTS = 1000  # of an environment: as far back as is looked for how long a digest ran


def trust_of(policy: PolicyConfig, config: Config) -> Trust:
    """Whose signatures a policy accepts.

    Raises:
        BuildonceError: a public key cannot be read.
    """
    rule = policy.signature
    if not rule.keys and not rule.identities:
        return own_trust(config)
    folder = config.path.parent
    return Trust(
        keys=tuple(read_public_key(folder / key.expanduser()) for key in rule.keys),
        identities=tuple(Identity(one.issuer, one.subject) for one in rule.identities),
        transparency_log=bool(rule.identities),
    )


class PolicyUndecided(Refusal):
    """A policy could not be asked, because the registry did not answer: nothing is let in.

    Nothing is said about the release: the same question may be answered in a minute.
    """


async def examine(
    release: Release,
    environment: str,
    *,
    config: Config,
    ledger: Ledger | None,
    registry: Registry,
    now: datetime | None = None,
    reason: Reason = "deploy",
) -> Decision:
    """Ask the policy of an environment about a release; nothing is written anywhere.

    Args:
        release: as somebody wants to deploy it; its image says which registry is asked.
        environment: name of the environment.
        config: has its policy, and whose signatures count.
        ledger: knows how long it ran elsewhere, and which statuses were seen; None: nobody knows.
        registry: the client to read with.
        now: the time by which ages are measured; None: now.
        reason: deploy or rollback.

    Raises:
        PolicyUndecided: the registry did not give a whole answer.
        BuildonceError: a public key of the policy cannot be read.
    """
    with _told(release, environment):
        decision, _ = await _examine(
            release, environment, config, ledger, registry, now or datetime.now(UTC), reason
        )
    return decision


async def _examine(
    release: Release,
    environment: str,
    config: Config,
    ledger: Ledger | None,
    registry: Registry,
    now: datetime,
    reason: Reason,
) -> tuple[Decision, Verified]:
    place = config.environment(environment)
    name, policy = config.policy(environment)
    if policy is None:
        dossier = Dossier(Verified(release.image))
    else:
        trust = trust_of(policy, config)
        verified = await read_evidence(release.image, trust, registry=registry)
        record, problem = await _record_of(release, trust, registry)
        incomplete = await _incomplete(release, registry)
        dossier = Dossier(
            verified=verified,
            record=record,
            record_problem=problem,
            incomplete=incomplete,
            ran=await _ran(release, policy.verified_in, config, ledger, now),
            remembered=await _remembered(release, ledger),
        )
    decision = evaluate(
        policy, dossier, release, environment=place.name, now=now, name=name, reason=reason
    )
    return decision, dossier.verified


def verifier(
    config: Config,
    *,
    ledger: Ledger,
    run: str,
    reason: Reason = "deploy",
    say: Callable[[str], None] = lambda _: None,
) -> Verify:
    """A function that lets a release into an environment or raises, and records what it decided.

    Args:
        config: has the policies.
        ledger: gets the decision ("policy.decided").
        run: id of the run that asks.
        reason: deploy or rollback.
        say: told the decision in a line.
    """

    async def verify(release: Release, environment: EnvironmentConfig) -> None:
        async with Registry() as registry:
            with _told(release, environment.name):
                decision, verified = await _examine(
                    release, environment.name, config, ledger, registry, datetime.now(UTC), reason
                )
        await remember_statuses(release, verified, ledger=ledger, run=run)
        await record_decision(decision, ledger=ledger, run=run, reason=reason)
        if not decision.allowed:
            raise PolicyDenied(decision)
        if decision.policy != "none":
            demands = len(decision.lines)
            say(
                f"{environment.name}: the policy {decision.policy!r} lets {release.version} in "
                f"({demands} demands met)"
            )

    return verify


@contextmanager
def _told(release: Release, environment: str) -> Iterator[None]:
    try:
        yield
    except (EvidenceUnavailable, RegistryError) as error:
        raise PolicyUndecided(
            f"whether {release.version} may enter {environment} is not known, so it may not: "
            f"{error.message}",
            remedy=error.remedy or ANSWER,
        ) from error


async def record_decision(
    decision: Decision, *, ledger: Ledger, run: str, reason: Reason = "deploy"
) -> None:
    """Put a decision into the ledger, with the lines that deny the release."""
    lines = [
        {"what": i.what, "state": i.state, "found": i.found[:500], "wanted": i.wanted[:200]}
        for i in decision.failing[:50]
    ]
    await ledger.append(
        "policy.decided",
        run=run,
        data={
            "environment": decision.environment,
            "version": decision.release.version,
            "digest": decision.release.image.digest,
            "policy": decision.policy,
            "allowed": decision.allowed,
            "reason": reason,
            "lines": lines,
        },
    )


async def remember_statuses(
    release: Release, verified: Verified, *, ledger: Ledger, run: str
) -> None:
    """Note in the ledger every status of the release that it has not yet: once seen here, none of
    them can disappear from the registry unnoticed.
    """
    known = await _remembered(release, ledger)
    said, _ = read_statuses(verified.of_type(predicates.STATUS))
    for item in said:
        if item.digest in known:
            continue
        status = item.status
        await ledger.append(
            "release.status",
            run=run,
            data={
                "version": release.version,
                "digest": release.image.digest,
                "status": item.digest,
                "state": status.state,
                "environments": list(status.environments) if status.environments else None,
                "actor": status.by,
                "reason": status.reason,
                "advisories": [advisory.model_dump(mode="json") for advisory in status.advisories],
            },
        )


async def _record_of(
    release: Release, trust: Trust, registry: Registry
) -> tuple[Record | None, str]:
    try:
        record = await find_record(
            release.image.repository, version=release.version, trust=trust, registry=registry
        )
    except RecordRefused as error:
        return None, error.message
    where = release.image.repository
    return record, "" if record else f"{where} has no record of {release.version}"


async def _incomplete(release: Release, registry: Registry) -> str:
    """What of the image the registry says that it does not have."""
    try:
        await parts_of(release.image, registry)
    except Absent as error:
        return error.message
    return ""


async def _remembered(release: Release, ledger: Ledger | None) -> frozenset[str]:
    if ledger is None:
        return frozenset()
    events = await ledger.events(kinds=["release.status"])
    digest = release.image.digest
    return frozenset(event.data["status"] for event in events if event.data["digest"] == digest)


async def _ran(
    release: Release,
    environments: Iterable[str],
    config: Config,
    ledger: Ledger | None,
    now: datetime,
) -> dict[str, timedelta]:
    """How long the release has run where its policy wants it to have run."""
    found: dict[str, timedelta] = {}
    for name in environments if ledger is not None else ():
        assert ledger is not None
        places = config.environment(name).places or (config.environment(name),)
        times = [
            time_in(release.image.digest, await ledger.rollouts(place.name, _ROLLOUTS), now)
            for place in places
        ]
        known = [time for time in times if time is not None]
        if known and len(known) == len(times):
            found[name] = min(known)  # in each of its regions
    return found


def time_in(digest: str, rollouts: Iterable[Rollout], now: datetime) -> timedelta | None:
    """How long a digest has run in an environment, all in all; None when it never did.

    Args:
        digest: of the image.
        rollouts: of the environment, in any order.
        now: until when a release that still runs is counted.
    """
    ends = sorted(
        ((r.finished, r.running_digest) for r in rollouts if r.finished and r.running_digest),
        key=lambda end: end[0],
    )
    total: timedelta | None = None
    for (since, running), until in zip(ends, [*(end[0] for end in ends[1:]), now], strict=True):
        if running == digest:
            total = (total or timedelta(0)) + max(until - since, timedelta(0))
    return total
