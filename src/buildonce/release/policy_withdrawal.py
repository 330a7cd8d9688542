"""Withdrawing a release, and taking that back: signed statuses, added to its digest.

    await withdraw(release, reason="it loses orders", by="ann", config=…, ledger=…, …)
    await reinstate(release, reason="it was the database", by="bob", …)

Nothing is deleted. What is written is read again with the trust root of every environment that it
concerns, because a withdrawal that an environment does not believe does not keep anything out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from buildonce import predicates
from buildonce.config import Config
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger
from buildonce.release.envelopes import Statement
from buildonce.release.errors import Absent
from buildonce.release.evidence import read_evidence
from buildonce.release.keys import own_trust
from buildonce.release.models import Image, Release
from buildonce.release.policy_check import remember_statuses, trust_of
from buildonce.release.policy_predicates import Advisory, Status
from buildonce.release.policy_status import Said, in_force
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer, sign


class NotWithdrawn(BuildonceError):
    """There is no withdrawal to take back."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Desk:
    """What statuses are written with.

    Args:
        config: the project's configuration.
        ledger: gets every status.
        registry: the client.
        run: id of the run that writes.
        say: told what is done.
    """

    config: Config
    ledger: Ledger
    registry: Registry
    run: str
    say: Callable[[str], None] = lambda _: None
    made: list[Signer] = field(default_factory=list)

    async def signer(self) -> Signer:
        """The pipeline's signer, whose statuses are believed; had only when there is one to write.

        Raises:
            BuildonceError: a key is missing, or cosign cannot be had.
        """
        if not self.made:
            self.made.append(await Signer.configured(self.config, say=self.say))
        return self.made[0]


async def withdraw(
    release: Release,
    *,
    reason: str,
    by: str,
    desk: Desk,
    environments: Sequence[str] | None = None,
    advisories: Sequence[Advisory] = (),
    database: datetime | None = None,
    sample: bool = False,
    now: datetime | None = None,
) -> Said:
    """Withdraw a release: no policy lets it in any more.

    Args:
        release: which.
        reason: why, one sentence; shown to whoever wants to deploy it.
        by: who says so.
        desk: what to write with.
        environments: where it may not run any more; None: nowhere.
        advisories: what became known; none when a person decided.
        database: date of the advisory database that told it.
        sample: that database was only the sample.
        now: when; None: now.

    Raises:
        BuildonceError: it cannot be written, or an environment does not trust who signed it.
    """
    status = Status(
        state="withdrawn",
        at=now or datetime.now(UTC),
        by=by,
        reason=reason,
        environments=tuple(environments) if environments else None,
        advisories=tuple(advisories),
        database=database,
        sample=sample,
        lifts=(),
        seen=(),
    )
    return await write(release, status, desk=desk)


async def reinstate(
    release: Release, *, reason: str, by: str, desk: Desk, now: datetime | None = None
) -> Said:
    """Lift every withdrawal of a release that is in force now; later ones are not touched.

    Raises:
        NotWithdrawn: there is none.
        BuildonceError: it cannot be written.
    """
    trust = own_trust(desk.config)
    verified = await read_evidence(release.image, trust, registry=desk.registry)
    open_ = in_force(verified)
    if not open_:
        raise NotWithdrawn(
            f"{release.version} is not withdrawn",
            remedy=f"buildonce explain {release.version} --for ENVIRONMENT",
        )
    status = Status(
        state="reinstated",
        at=now or datetime.now(UTC),
        by=by,
        reason=reason,
        environments=None,
        advisories=(),
        database=None,
        lifts=tuple(item.digest for item in open_),
        seen=(),
    )
    return await write(release, status, desk=desk)


async def write(release: Release, status: Status, *, desk: Desk) -> Said:
    """Sign a status, lay it beside every copy of the release, and see that it is believed there.

    Raises:
        BuildonceError: it cannot be written, or an environment does not trust who signed it.
    """
    signer = await desk.signer()
    written: Said | None = None
    for image in await copies(release, desk):
        verified = await read_evidence(image, signer.trust, registry=desk.registry)
        if not verified.signatures:
            raise BuildonceError(
                f"{image.reference} is not signed by the key that would sign its status",
                remedy="sign with the key of [signing] that released it",
            )
        seen = sorted(
            {item.digest for item in verified.of_type(predicates.STATUS)} | set(status.seen)
        )
        # Everywhere the same words: what is signed once is laid down in each place.
        status = status.model_copy(update={"seen": tuple(seen)}) if written is None else status
        predicate = status.model_dump(mode="json")
        statement = Statement(predicates.STATUS, predicate, "status", status.at)
        after = await sign(
            image, [statement], signer=signer, registry=desk.registry, attest_only=True
        )
        mine = [i for i in after.of_type(predicates.STATUS) if dict(i.predicate) == predicate]
        written = Said(mine[-1].digest, status)
        await remember_statuses(release, after, ledger=desk.ledger, run=desk.run)
        await _believed(image, written, desk, signer)
    assert written is not None, "a release has one place at least"
    return written


async def copies(release: Release, desk: Desk) -> list[Image]:
    """The release's image where it was pushed, and in each environment's registry that has it."""
    config = desk.config
    others = {place.registry for place in config.environments.values() if place.registry}
    found = [release.image]
    for repository in sorted(others - {release.image.repository}):
        image = replace(release.image, repository=repository)
        try:
            await desk.registry.manifest(repository, image.digest)
        except Absent:
            continue
        found.append(image)
    return found


async def _believed(image: Image, written: Said, desk: Desk, signer: Signer) -> None:
    doubting = []
    for name, place in desk.config.environments.items():
        _, policy = desk.config.policy(name)
        elsewhere = place.registry is not None and place.registry != image.repository
        if policy is None or elsewhere or not written.counts_in(name):
            continue
        trust = trust_of(policy, desk.config)
        if trust == signer.trust:
            continue
        verified = await read_evidence(image, trust, registry=desk.registry)
        if written.digest not in {item.digest for item in verified.attestations}:
            doubting.append(name)
    if doubting:
        raise BuildonceError(
            f"the status is written, but {', '.join(doubting)} does not trust its signer, so it "
            "does not count there",
            remedy="sign it with a key that the policies of these environments trust ([signing])",
        )
