"""`buildonce env plan | apply`: the stacks of an environment in an account."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import typer

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.aws.change_sets import Planned
from buildonce.delivery.aws.roles import documents
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.stacks import apply as apply_stacks
from buildonce.delivery.aws.stacks import plan
from buildonce.delivery.errors import DeliveryError
from buildonce.delivery.signals import ended_by_signals
from buildonce.ledger import new_run_id

app = typer.Typer()
env = typer.Typer(
    help="Plan and apply the stacks of an environment.",
    epilog="Example: buildonce env plan production",
    no_args_is_help=True,
)
app.add_typer(env, name="env")

ENVIRONMENT = typer.Argument(help="Name of the environment in pipeline.toml.", show_default=False)
CONFIG = typer.Option(Path("ci/pipeline.toml"), "--config", "-c", help="The configuration file.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")


@env.command("plan", epilog="Example: buildonce env plan production --as shop-stacks")
def plan_command(
    environment: str = ENVIRONMENT,
    stacks_role: str | None = typer.Option(None, "--as", help="Role that may plan."),
    only_roles: bool = typer.Option(
        False, "--role", help="Print only the documents of the roles; ask no account."
    ),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Print what `env apply` would change, drift, and what each role is allowed."""
    loaded = Config.load(config)
    shown: dict[str, object] = {}

    async def one(place: EnvironmentConfig) -> None:
        project = loaded.project.name
        roles = documents(place, project=project, source=loaded.project.repository)
        planned: list[Planned] = []
        if not only_roles:
            aws = await AwsSession.open(_as(place, stacks_role), run=new_run_id())
            planned = await plan(aws, place, project=project)
        shown[place.name] = {"stacks": [p.to_json() for p in planned], "roles": roles}
        if not as_json:
            for stack in planned:
                _print(stack)
            for name, document in roles.items():
                typer.echo(f"{place.name}: role {name!r} may:")
                typer.echo(json.dumps(document, indent=2))

    _each(loaded, environment, one)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))


@env.command("apply", epilog="Example: buildonce env apply production --as shop-stacks")
def apply_command(
    environment: str = ENVIRONMENT,
    stacks_role: str | None = typer.Option(None, "--as", help="Role that may change stacks."),
    execution_role: str | None = typer.Option(
        None, "--execution-role", help="ARN of the role by which CloudFormation works."
    ),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Make the environment's stacks what they should be, in their order; a failure ends it."""
    loaded = Config.load(config)
    shown: dict[str, object] = {}

    async def one(place: EnvironmentConfig) -> None:
        aws = await AwsSession.open(_as(place, stacks_role), run=new_run_id())
        done = await apply_stacks(
            aws,
            place,
            project=loaded.project.name,
            say=lambda line: typer.echo(line, err=True),
            execution_role=execution_role,
        )
        shown[place.name] = [stack.to_json() for stack in done]
        if not as_json:
            changed = sum(len(stack.changes) for stack in done)
            typer.echo(f"{place.name}: {changed} resources changed")

    _each(loaded, environment, one)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))


def _each(
    config: Config, environment: str, work: Callable[[EnvironmentConfig], Awaitable[None]]
) -> None:
    found = config.environment(environment)
    if found.target == "local":
        raise DeliveryError(
            f"{environment} is on this machine and has no stacks",
            remedy="buildonce env plan of an environment with `account`",
        )

    async def main() -> None:
        async with ended_by_signals(lambda line: typer.echo(line, err=True)):
            for place in found.places:
                await work(place)

    anyio.run(main)


def _as(place: EnvironmentConfig, role: str | None) -> EnvironmentConfig:
    return place if role is None else place.model_copy(update={"role": role})


def _print(planned: Planned) -> None:
    if planned.waits_for is not None:
        typer.echo(f"{planned.stack}: to be made once {planned.waits_for} is there")
    elif not planned.changes:
        typer.echo(f"{planned.stack}: as it should be")
    else:
        typer.echo(f"{planned.stack}: {'to change' if planned.exists else 'to make'}")
    for change in planned.changes:
        typer.echo(f"  {change}")
    for line in planned.drift:
        typer.echo(f"  changed by other hands: {line}")
