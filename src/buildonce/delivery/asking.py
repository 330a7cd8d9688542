"""The commands `approve` and `reject`: a person's word, given here or in another job, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import approval_standing, decide
from buildonce.delivery.errors import UnknownRelease
from buildonce.delivery.here import (
    CONFIG,
    ENVIRONMENT,
    JSON,
    RELEASE,
    Here,
    main,
    print_json,
    user,
)
from buildonce.delivery.naming import known_release
from buildonce.delivery.options import Options
from buildonce.delivery.statements import find_signer
from buildonce.ledger import Rollout, new_run_id
from buildonce.release import Release

app = typer.Typer()

KEY = typer.Option(
    None,
    "--key",
    help="Your private SSH key (Ed25519), where [approvers] names people; else "
    "$BUILDONCE_APPROVAL_KEY, then ~/.ssh/id_ed25519.",
)
ROLLOUT = typer.Option(
    None, "--rollout", help="Answer the question of this rollout, whose verdict is inconclusive."
)


@app.command(
    epilog="Examples: buildonce approve production --release 2026.11.21+g1a2b3c4;  "
    "buildonce approve production --rollout 20261121T101500Z-4e1f9a"
)
def approve(
    environment: str = ENVIRONMENT,
    release: str | None = RELEASE,
    rollout: str | None = ROLLOUT,
    reason: str | None = typer.Option(None, help="Why; kept with the approval."),
    key: Path | None = KEY,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Approve a release for an environment that wants an approval."""
    _decide(environment, release, rollout, reason, key, config, as_json, given=True)


@app.command(epilog="Example: buildonce reject production --reason 'the price list is wrong'")
def reject(
    environment: str = ENVIRONMENT,
    release: str | None = RELEASE,
    rollout: str | None = ROLLOUT,
    reason: str | None = typer.Option(None, help="Why; shown to whoever waits."),
    key: Path | None = KEY,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Refuse a release; who waits for the approval ends, and a rollout under way goes back."""
    _decide(environment, release, rollout, reason, key, config, as_json, given=False)


def _decide(
    environment: str,
    release: str | None,
    rollout: str | None,
    reason: str | None,
    key: Path | None,
    config: Path,
    as_json: bool,
    *,
    given: bool,
) -> None:
    async def work(here: Here) -> None:
        places = here.config.environment(environment).places
        wanted = release
        if rollout is not None:
            about = await _asking(here, rollout, places)
            wanted = wanted or about.digest
        chosen = await known_release(wanted, ledger=here.ledger)
        signer = find_signer(here.config.approvers, key=key, user=user())
        options = here.options(new_run_id())
        said = [
            await decide(
                chosen,
                place,
                given=given,
                signer=signer,
                options=options,
                reason=reason,
                rollout=rollout,
            )
            for place in places
        ]
        if as_json:
            found = [{"kind": one.kind, "at": one.at.isoformat(), **one.data} for one in said]
            print_json(found[0] if len(found) == 1 else found)
            return
        word = "approved" if given else "refused"
        for place in places:
            typer.echo(f"{word} {chosen.version} ({chosen.image.short}) for {place.name}")
            if given and rollout is None:
                await _tell_standing(chosen, place, options)

    main(config, work)


async def _asking(here: Here, rollout: str, places: Sequence[EnvironmentConfig]) -> Rollout:
    """The rollout that a word is an answer to.

    Raises:
        UnknownRelease: there is none of that id in these places.
    """
    found = await here.ledger.rollout(rollout)
    names = [place.name for place in places]
    if found is None or found.environment not in names:
        where = f"; it is of {found.environment}" if found is not None else ""
        raise UnknownRelease(
            f"{' and '.join(names)} has no rollout {rollout!r}{where}",
            remedy=f"buildonce history {found.environment if found else names[0]} --json",
        )
    return found


async def _tell_standing(release: Release, place: EnvironmentConfig, options: Options) -> None:
    if place.approval is None:
        typer.echo(f"note: {place.name} wants no approval; the word is kept, and changes nothing")
        return
    standing = await approval_standing(release, place, options)
    have = len(standing.yes)
    if have < place.approval.quorum:
        typer.echo(f"{have} of {place.approval.quorum} approvals so far")
    for why in standing.ignored:
        typer.echo(f"note: {why}")
