"""From an environment's configuration to its target."""

from __future__ import annotations

from pathlib import Path

from buildonce import places
from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.delivery.containers import ContainerRuntime, RuntimeContainers, detect_runtime
from buildonce.delivery.lease import Leases
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.local import LocalTarget
from buildonce.delivery.target import Target


async def open_target(
    environment: EnvironmentConfig,
    *,
    project: str,
    ledger: Path | None = None,
    runtime: ContainerRuntime | None = None,
    run: str = "",
    clock: Clock = SYSTEM_CLOCK,
    config: Config | None = None,
) -> Target:
    """The target that the environment names.

    Args:
        environment: its configuration.
        project: whose environment it is.
        ledger: path of the ledger, for services that may read it; None means the usual one.
        runtime: how to call podman or docker; found when None.
        run: id of the run that deploys, which an account's records then name.
        clock: by which it waits.
        config: of the project: whose signatures count where evidence is copied to an account.

    Raises:
        TargetFailed: no container runtime works here.
        DeliveryError: the account cannot be entered as the configuration says.
    """
    if environment.target != "local":
        # Here: who deploys to this machine needs nothing of it.
        from buildonce.delivery.aws import open_aws_target
        from buildonce.delivery.aws.evidence import carrier

        carry = carrier(config) if config is not None else None
        return await open_aws_target(
            environment, project=project, run=run, clock=clock, carry=carry
        )
    return LocalTarget(
        environment,
        project=project,
        containers=RuntimeContainers(runtime or await detect_runtime()),
        ledger=ledger or places.home() / project / "ledger.sqlite",
        clock=clock,
    )


def open_leases(
    environment: EnvironmentConfig,
    *,
    project: str,
    run: str = "",
    home: Path | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Leases:
    """Where the lease of that environment is kept.

    Args:
        environment: its configuration.
        project: whose environment it is.
        run: id of the run that deploys.
        home: where environments of this machine are kept; `places.home()` when None.
        clock: by which leases expire.
    """
    if environment.leases is not None:
        from buildonce.delivery.aws import open_aws_leases

        return open_aws_leases(environment.leases, project=project, run=run, clock=clock)
    return SqliteLeases((home or places.home()) / project, clock=clock)
