"""The commands of delivery: deploy, promote, rollback, resume, approve, reject, status, …

They need no engine. Progress goes to stderr, results to stdout; `--json` prints the result as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from buildonce.config import EnvironmentConfig
from buildonce.delivery import asking, viewing
from buildonce.delivery.deploying import deliver
from buildonce.delivery.here import (
    CONFIG,
    ENVIRONMENT,
    JSON,
    RELEASE,
    WAIT,
    Here,
    main,
    print_json,
    print_table,
    rollout_json,
    say,
    user,
)
from buildonce.delivery.naming import known_release
from buildonce.delivery.resuming import resume as resume_unfinished
from buildonce.delivery.rollback import rollback as roll_back
from buildonce.delivery.targets import open_leases
from buildonce.delivery.waves import check_order, concurrency_of
from buildonce.errors import ExitCode
from buildonce.ledger import Rollout, new_run_id
from buildonce.release import Release

app = typer.Typer()
app.registered_commands += viewing.app.registered_commands + asking.app.registered_commands
environments = typer.Typer(help="Environments as a whole.", no_args_is_help=True)
app.add_typer(environments, name="environments")

TO = typer.Argument(
    help="Name of an environment, or of [waves], in pipeline.toml.", show_default=False
)

DRY_RUN = typer.Option(
    False, "--dry-run", help="Say what it would meet, and change nothing; 4 when it is kept out."
)


@app.command(
    epilog="Examples: buildonce deploy development --release 2026.11.21+g1a2b3c4;  "
    "buildonce deploy live --dry-run"
)
def deploy(
    environment: str = TO,
    release: str | None = RELEASE,
    wait: bool = WAIT,
    dry_run: bool = DRY_RUN,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> int:
    """Deploy a release of the ledger; a failure puts back what ran before.

    With the name of waves, all their environments, wave by wave.
    """

    async def work(here: Here) -> ExitCode:
        here.waves(environment)
        chosen = await known_release(release, ledger=here.ledger)
        if dry_run:
            return await _foretell(here, chosen, environment, "deploy", as_json)
        await _deliver(here, chosen, environment, "deploy", wait, as_json)
        return ExitCode.PASSED

    return main(config, work)


@app.command(
    epilog="Examples: buildonce promote 2026.11.21+g1a2b3c4 --to production;  "
    "buildonce promote latest --to live --dry-run --json"
)
def promote(
    release: str = typer.Argument(
        help="Version, commit or digest of a release; or latest.", show_default=False
    ),
    to: str = typer.Option(..., "--to", help="Name of an environment, or of [waves]."),
    wait: bool = WAIT,
    dry_run: bool = DRY_RUN,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> int:
    """Deploy a release to where it comes next; it must run in the environment before (`after`)."""

    async def work(here: Here) -> ExitCode:
        waves, _ = here.waves(to)
        chosen = await known_release(release, ledger=here.ledger)
        if dry_run:
            return await _foretell(here, chosen, to, "promote", as_json)
        await check_order(waves, chosen, config=here.config, ledger=here.ledger)
        await _deliver(here, chosen, to, "promote", wait, as_json)
        return ExitCode.PASSED

    return main(config, work)


@app.command(epilog="Example: buildonce rollback production")
def rollback(
    environment: str = TO,
    wait: bool = WAIT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Go back to the last good release other than the current one, configured as it was then.

    At once, without steps, bake, approval or window; with the name of waves, everywhere side by
    side.
    """

    async def work(here: Here) -> None:
        import anyio

        places = [place for wave in here.waves(environment)[0] for place in wave]
        found: dict[str, Rollout] = {}
        turns = anyio.Semaphore(concurrency_of(here.config, environment))

        async def one(place: EnvironmentConfig) -> None:
            current = await here.ledger.current(place.name)
            name = current.version if current is not None else None
            chosen = await known_release(name, ledger=here.ledger)
            async with turns, here.run(chosen, "rollback") as run:
                found[place.name] = await roll_back(
                    place,
                    project=here.config.project.name,
                    ledger=here.ledger,
                    run=run,
                    target=await here.target(place, run=run),
                    verify=here.verify(run, "rollback"),
                    progress=say,
                    actor=user(),
                    wait=wait,
                )

        if len(places) == 1:
            await one(places[0])
        else:
            async with anyio.create_task_group() as group:
                for place in places:
                    group.start_soon(one, place)
        _tell(places, [found[place.name] for place in places], as_json)

    main(config, work)


@app.command(epilog="Example: buildonce resume staging")
def resume(
    environment: str | None = typer.Argument(
        None, help="Only what concerns this environment; everything unfinished when not given."
    ),
    back: bool = typer.Option(
        False, "--back", help="Take it back instead of continuing; what was proven stays."
    ),
    untested: bool = typer.Option(
        False, "--untested", help="Continue also where only the pipeline can run a wave's tests."
    ),
    wait: bool = WAIT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Continue (or take back) what a killed process left, and bring a dead environment back."""

    async def work(here: Here) -> None:
        places = here.places()
        if environment is not None and environment not in places:
            here.config.environment(environment)  # says what there is
        run = new_run_id()
        options = here.options(run, wait=wait, verify=here.verify(run))
        for one in await resume_unfinished(
            places, options, only=environment, back=back, untested=untested
        ):
            say(f"{one.version} in {', '.join(one.environments)}: {one.result}")
        shown = [places[environment]] if environment is not None else list(places.values())
        await viewing.print_status(here, shown, as_json)

    main(config, work)


@environments.command(epilog="Example: buildonce environments down development")
def down(environment: str = ENVIRONMENT, wait: bool = WAIT, config: Path = CONFIG) -> None:
    """Remove an environment: containers, network, proxy, state. The ledger keeps its past."""

    async def work(here: Here) -> None:
        for place in here.config.environment(environment).places:
            target = await here.target(place)
            leases = open_leases(place, project=here.config.project.name)
            async with leases.hold(place.name, run=new_run_id(), wait=wait, say=say) as lease:
                target.fence = lease.token
                await target.down()
            say(f"{place.name}: removed")

    main(config, work)


async def _foretell(here: Here, chosen: Release, to: str, command: str, as_json: bool) -> ExitCode:
    # Here: it needs the registry's client, which the other commands need only later, or never.
    from buildonce.delivery.foreseeing import foresee

    waves, _ = here.waves(to)
    found = await foresee(
        chosen,
        waves,
        here.options(new_run_id()),
        config=here.config,
        in_order=command == "promote",
    )
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        rows = [("WAVE", "ENVIRONMENT", "RUNS", "STEPS", "IN THE WAY")]
        for one in found:
            steps = "-" if one.there else f"{' → '.join(str(step) for step in one.steps)} %"
            way = "; ".join([*one.refusals, *(f"waits: {wait}" for wait in one.waits)])
            rows.append((str(one.wave), one.environment, one.runs or "-", steps, way or "nothing"))
        print_table(rows)
    kept_out = any(one.refusals for one in found)
    return ExitCode.POLICY_DENIED if kept_out else ExitCode.PASSED


async def _deliver(
    here: Here, chosen: Release, to: str, command: str, wait: bool, as_json: bool
) -> None:
    waves, bake = here.waves(to)
    places = [place for wave in waves for place in wave]
    async with here.run(chosen, command) as run:
        options = here.options(
            run,
            wait=wait,
            verify=here.verify(run),
            concurrency=concurrency_of(here.config, to),
        )
        rollouts = await deliver(chosen, waves, options, bake=bake)
    _tell(places, rollouts, as_json)


def _tell(places: Sequence[EnvironmentConfig], rollouts: Sequence[Rollout], as_json: bool) -> None:
    if as_json:
        found = [
            {**rollout_json(rollout), "url": place.url}
            for place, rollout in zip(places, rollouts, strict=True)
        ]
        print_json(found[0] if len(found) == 1 else found)
        return
    for place, rollout in zip(places, rollouts, strict=True):
        short = rollout.digest.removeprefix("sha256:")[:12]
        where = f" at {place.url}" if place.url else ""
        typer.echo(f"{place.name} runs {rollout.version} ({short}){where}")
