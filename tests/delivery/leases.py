"""Leases for tests: the two places where they are kept, and machines with clocks of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from buildonce.config.aws import AccountConfig
from buildonce.config.leases import LeasesConfig
from buildonce.delivery.aws.lease_dynamodb import DynamoLeases
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.lease_sqlite import SqliteLeases
from tests.aws.clock import SimulatedClock
from tests.aws.faults import Process
from tests.aws.simulation import Simulation

TERM = timedelta(seconds=30)
ACCOUNT, REGION = "999999999999", "eu-west-1"

_TABLE = {
    "TableName": "buildonce-leases",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "environment", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "environment", "KeyType": "HASH"}],
}


@dataclass
class Machine:
    """A machine's clock: as all others', but set wrong, and stopped while the machine is."""

    time: SimulatedClock
    wrong: timedelta = timedelta(0)
    stopped: anyio.Event | None = field(default=None)

    def now(self) -> datetime:
        return self.time.now() + self.wrong

    def monotonic(self) -> float:
        return self.time.monotonic() + 1000 * hash(self.wrong) % 97

    async def sleep(self, seconds: float) -> None:
        await self.time.sleep(seconds)
        if self.stopped is not None:
            await self.stopped.wait()


class Sqlite:
    """All processes of one machine, and its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(self, clock: Any, _: Process | None = None) -> SqliteLeases:
        return SqliteLeases(self.folder, term=TERM, clock=clock)

    @staticmethod
    def crash(lease: Any) -> None:
        """What the kernel does when the process ends, however it ends."""
        os.close(lease._descriptor)


class Dynamo:
    """A team's table: moto behind the simulation, where requests are checked and authorised."""

    def __init__(self) -> None:
        self.simulation = Simulation()
        self.config = LeasesConfig(account="tools", region=REGION, role="leases")
        self.config._account = AccountConfig(id=ACCOUNT)
        arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/*"
        for role, actions in (
            ("leases", ["dynamodb:GetItem", "dynamodb:UpdateItem"]),
            ("admin", ["dynamodb:CreateTable", "dynamodb:DeleteTable"]),
        ):
            statement = {"Effect": "Allow", "Action": actions, "Resource": arn}
            self.simulation.role(ACCOUNT, role, policy={"Statement": [statement]})

    async def session(self, role: str = "leases", process: Process | None = None) -> AwsSession:
        entrance = self.config.model_copy(update={"role": role})
        return await AwsSession.open(
            entrance,
            run="run-1",
            clock=self.simulation.clock,
            connect=lambda: self.simulation.connect(process),
        )

    async def make(self) -> None:
        await (await self.session("admin")).call("dynamodb", "CreateTable", **_TABLE)

    async def remove(self) -> None:
        admin = await self.session("admin")
        await admin.call("dynamodb", "DeleteTable", TableName=_TABLE["TableName"])

    def process(self, clock: Any, process: Process | None = None) -> DynamoLeases:
        async def session() -> AwsSession:
            return await self.session(process=process)

        return DynamoLeases(
            session, table=self.config.table, project="shop", term=TERM, clock=clock
        )

    @staticmethod
    def crash(lease: Any) -> None:
        """Nothing tells the table."""
