"""Environments in AWS accounts: sessions, targets on ECS and Lambda, stacks, alarms, leases.

target = await open_aws_target(production, project="shop", run=run)

boto3 is imported by the first session, and by nothing before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildonce.delivery.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from buildonce.config import EnvironmentConfig
    from buildonce.config.leases import LeasesConfig
    from buildonce.delivery.aws.session import Connect
    from buildonce.delivery.aws.target import Carry
    from buildonce.delivery.lease import Leases
    from buildonce.delivery.target import Target


async def open_aws_target(
    environment: EnvironmentConfig,
    *,
    project: str,
    run: str,
    clock: Clock = SYSTEM_CLOCK,
    connect: Connect | None = None,
    carry: Carry | None = None,
) -> Target:
    """The target of an environment in an account; its role is assumed and its identity compared.

    Raises:
        NoCredentials, WrongIdentity, AwsRefused, AwsUnreachable: see `AwsSession.open`.
    """
    from buildonce.delivery.aws.function import LambdaTarget
    from buildonce.delivery.aws.native import NativeEcsTarget
    from buildonce.delivery.aws.session import AwsSession
    from buildonce.delivery.aws.weighted import WeightedEcsTarget

    aws = await AwsSession.open(environment, run=run, clock=clock, connect=connect)
    if environment.target == "lambda":
        return LambdaTarget(environment, project=project, aws=aws, carry=carry)
    kind = WeightedEcsTarget if environment.service.strategy == "weighted" else NativeEcsTarget
    return kind(environment, project=project, aws=aws, carry=carry)


def open_aws_leases(
    leases: LeasesConfig,
    *,
    project: str,
    run: str,
    clock: Clock = SYSTEM_CLOCK,
    connect: Connect | None = None,
) -> Leases:
    """The leases in a team's table; its account is entered when the first one is wanted."""
    from buildonce.delivery.aws.lease_dynamodb import DynamoLeases
    from buildonce.delivery.aws.session import AwsSession

    async def session() -> AwsSession:
        return await AwsSession.open(leases, run=run, clock=clock, connect=connect)

    return DynamoLeases(session, table=leases.table, project=project, clock=clock)
