"""Approvals: a person's word that this digest may enter that environment, kept in the ledger.

    await decide(release, production, given=True, signer=signer, options=options)
    await wait_for_approval(release, production, options=options)

An approval is of a digest and an environment, signed by who gives it, so it survives the pipeline
that waits for it, needs to be given once, and says nothing about the next digest. Of several words
of one person the newest counts; one standing "no" is enough to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from buildonce.config import EnvironmentConfig
from buildonce.config.approvals import ApprovalConfig
from buildonce.delivery.errors import ApprovalRefused, Unclear
from buildonce.delivery.options import Options
from buildonce.delivery.saying import Wait
from buildonce.delivery.statements import BadSignature, Signer, Statement, verified
from buildonce.delivery.watch import Verdict, Watch
from buildonce.ledger import Event
from buildonce.release import Release

_LOOK_AGAIN = 1.0  # seconds
_KINDS = ("approval.given", "approval.refused")


@dataclass(frozen=True)
class Standing:
    """How things stand with a release and an environment.

    Attributes:
        yes: the words that count for it, the newest of each person.
        no: those against it.
        ignored: why others do not count, a sentence each.
    """

    yes: tuple[Statement, ...]
    no: tuple[Statement, ...]
    ignored: tuple[str, ...]


async def decide(
    release: Release,
    place: EnvironmentConfig,
    *,
    given: bool,
    signer: Signer,
    options: Options,
    reason: str | None = None,
    rollout: str | None = None,
) -> Event:
    """Record that the signer approves (or, with `given` false, refuses) the release there.

    Args:
        rollout: the word is an answer to the question of this rollout, and nothing else.
    """
    wanted = place.approval or ApprovalConfig()
    now = options.clock.now()
    statement = Statement(
        given=given,
        project=options.project,
        environment=place.name,
        digest=release.image.digest,
        version=release.version,
        actor=signer.actor,
        at=now,
        until=now + wanted.expires,
        rollout=rollout,
        reason=reason,
    )
    data: dict[str, object] = {
        "environment": place.name,
        "actor": signer.actor,
        "version": release.version,
        "digest": release.image.digest,
        "rollout": rollout,
        "reason": reason,
        "expires": statement.until.isoformat(),
        "envelope": signer.sign(statement),
    }
    kind = "approval.given" if given else "approval.refused"
    return await options.ledger.append(kind, run=options.run, data=data)


async def wait_for_approval(
    release: Release, place: EnvironmentConfig, *, options: Options
) -> bool:
    """Wait until enough people have approved; whether it had to wait. No time budget runs.

    Raises:
        ApprovalRefused: somebody refused.
    """
    wanted = place.approval
    assert wanted is not None
    command = f"buildonce approve {place.name} --release {release.version}"
    wait: Wait | None = None
    with options.awaiting():
        while True:
            standing = await approval_standing(release, place, options)
            if standing.no:
                raise _refused(standing.no[0], place, command)
            if len(standing.yes) >= wanted.quorum:
                break
            if wait is None:
                have = "".join(f", {one.actor} has" for one in standing.yes)
                people = f" by {wanted.quorum} people{have}" if wanted.quorum > 1 else ""
                ignored = "".join(f"; {why}" for why in standing.ignored)
                wait = Wait(
                    options.clock,
                    lambda text: options.progress(f"{place.name}: {text}"),
                    f"the approval of {release.version} ({release.image.short}){people}; give it "
                    f"with `{command}`, or `buildonce reject …`{ignored}",
                )
            await wait.sleep(_LOOK_AGAIN)
    for one in standing.yes:
        because = f": {one.reason}" if one.reason else ""
        options.progress(f"{place.name}: {one.actor} approved {release.version}{because}")
    return wait is not None


async def approval_standing(
    release: Release, place: EnvironmentConfig, options: Options
) -> Standing:
    """Who has approved and refused the release there, by words that are verified and count now."""
    wanted = place.approval or ApprovalConfig()
    own = set() if wanted.self_approval else await _involved(release, options)
    newest: dict[str, Statement] = {}
    ignored: dict[str, str] = {}
    for event in await _words(release, place, options):
        try:
            statement = _believed(event, release, place, options)
        except BadSignature as error:
            ignored[event.data["actor"]] = error.message
            continue
        if statement.rollout is None:
            newest[statement.actor] = statement
    yes, no = [], []
    for actor, statement in newest.items():
        if wanted.approvers and actor not in wanted.approvers:
            ignored[actor] = f"{actor} is not among the approvers of {place.name}"
        elif statement.until <= options.clock.now():
            ignored[actor] = f"the word of {actor} expired at {statement.until:%Y-%m-%d %H:%M} UTC"
        elif not statement.given:
            no.append(statement)
        elif actor in own:
            ignored[actor] = f"{actor} made or deploys it, so that approval does not count"
        else:
            yes.append(statement)
    return Standing(tuple(yes), tuple(no), tuple(ignored.values()))


@dataclass(frozen=True)
class _Withdrawal:
    """In breach once an approval is taken back while the release is being proven."""

    release: Release
    place: EnvironmentConfig
    options: Options
    name: str = "approval"

    async def look(self) -> Verdict:
        standing = await approval_standing(self.release, self.place, self.options)
        if standing.no:
            one = standing.no[0]
            because = f": {one.reason}" if one.reason else ""
            return Verdict("breach", f"{one.actor} refused {self.release.version}{because}")
        return Verdict("ok", f"approved by {', '.join(o.actor for o in standing.yes) or 'nobody'}")


def withdrawal_watch(
    release: Release, place: EnvironmentConfig, options: Options
) -> Sequence[Watch]:
    """A watch for environments that want an approval, none for others."""
    return [_Withdrawal(release, place, options)] if place.approval is not None else []


async def ask(
    release: Release,
    place: EnvironmentConfig,
    rollout: str,
    why: str,
    *,
    options: Options,
    say: Callable[[str], None],
) -> Statement:
    """Ask whether a rollout whose verdict is inconclusive shall go on; the answer "yes".

    Raises:
        Unclear: nobody answered in time.
        ApprovalRefused: the answer is no.
    """
    command = f"buildonce approve {place.name} --rollout {rollout}"
    wanted = place.approval or ApprovalConfig()
    limit: timedelta = place.rollout.ask_for
    wait = Wait(
        options.clock,
        say,
        f"somebody to say whether to go on, as it is inconclusive ({why}): `{command}`, or "
        "`buildonce reject …`",
        limit,
    )
    while await wait.sleep(_LOOK_AGAIN):
        for event in await _words(release, place, options):
            if event.data.get("rollout") != rollout:
                continue
            try:
                statement = _believed(event, release, place, options)
            except BadSignature as error:
                say(error.message)
                continue
            if statement.rollout != rollout:
                continue
            if wanted.approvers and statement.actor not in wanted.approvers:
                continue
            if not statement.given:
                raise _refused(statement, place, command)
            return statement
    raise Unclear(f"inconclusive, and nobody answered within {limit.total_seconds():g} s: {why}")


def _refused(word: Statement, place: EnvironmentConfig, command: str) -> ApprovalRefused:
    because = f": {word.reason}" if word.reason else ""
    return ApprovalRefused(
        f"{word.actor} refused {word.version} for {place.name}{because}",
        remedy=f"{command}  # by {word.actor}, to decide otherwise",
    )


async def _words(release: Release, place: EnvironmentConfig, options: Options) -> list[Event]:
    return [
        event
        for event in await options.ledger.events(kinds=_KINDS)
        if event.data["environment"] == place.name
        and event.data.get("digest") == release.image.digest
    ]


def _believed(
    event: Event, release: Release, place: EnvironmentConfig, options: Options
) -> Statement:
    """What the event's signature covers; the event's own fields are only for lists.

    Raises:
        BadSignature: it is not signed by whom it names, or signed for something else.
    """
    envelope = event.data.get("envelope")
    if not isinstance(envelope, dict):
        raise BadSignature(f"an approval in the name of {event.data['actor']} is not signed")
    statement = verified(envelope, approvers=options.approvers)
    about = (statement.project, statement.environment, statement.digest)
    if about != (options.project, place.name, release.image.digest):
        raise BadSignature(f"an approval by {statement.actor} was signed for something else")
    if statement.given != (event.kind == "approval.given"):
        raise BadSignature(f"an approval by {statement.actor} says the opposite of its record")
    return statement


async def _involved(release: Release, options: Options) -> set[str]:
    """Who made the release, and who deploys it."""
    people = {options.actor} if options.actor else set()
    for event in await options.ledger.events(kinds=["release.created"]):
        if event.data["digest"] == release.image.digest:
            for start in await options.ledger.events(run=event.run, kinds=["run.started"]):
                people.add(start.data["actor"])
    return people
