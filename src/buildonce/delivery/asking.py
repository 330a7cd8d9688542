"""The commands `approve` and `reject`: a person's word, given here or in another job, once."""

from __future__ import annotations

from pathlib import Path

import typer

from buildonce.delivery.approval import approval_standing, decide
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
from buildonce.delivery.rollback import known_release
from buildonce.delivery.statements import find_signer
from buildonce.ledger import new_run_id

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


@app.command(epilog="Example: buildonce approve production --release 2026.11.21+g1a2b3c4")
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
        place = here.config.environment(environment)
        wanted = release
        if rollout is not None and wanted is None:
            about = await here.ledger.rollout(rollout)
            wanted = about.version if about is not None else None
        chosen = await known_release(wanted, ledger=here.ledger)
        signer = find_signer(here.config.approvers, key=key, user=user())
        options = here.options(new_run_id())
        event = await decide(
            chosen,
            place,
            given=given,
            signer=signer,
            options=options,
            reason=reason,
            rollout=rollout,
        )
        if as_json:
            print_json({"kind": event.kind, "at": event.at.isoformat(), **event.data})
            return
        word = "approved" if given else "refused"
        typer.echo(f"{word} {chosen.version} ({chosen.image.short}) for {place.name}")
        if given and place.approval is not None and rollout is None:
            standing = await approval_standing(chosen, place, options)
            have = len(standing.yes)
            if have < place.approval.quorum:
                typer.echo(f"{have} of {place.approval.quorum} approvals so far")
            for why in standing.ignored:
                typer.echo(f"note: {why}")

    main(config, work)
