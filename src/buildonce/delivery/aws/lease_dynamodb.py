"""Leases of a team, in one DynamoDB table: whoever deploys from wherever sees the same holder.

    leases = DynamoLeases(open_session, table="buildonce-leases", project="shop")
    async with leases.hold("production", run=run) as lease:
        await lease.check()

Every change is one conditional write: to take a lease is to replace just the state that was read,
and to keep it is to write while the token is still one's own. The item stays when a lease is given
back, so that tokens grow for ever.

Machines' clocks differ, so nobody's clock alone ends another's lease. The time in the item tells a
lease that is held from one that seems over; one that seems over is taken once the taker has seen no
sign of its holder for a whole term by its own stopwatch. By then the holder, whose stopwatch began
earlier, has stopped as well. What ended longer ago than clocks can differ is taken at once: AWS
refuses the requests of a clock that is five minutes off.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import anyio

from buildonce.delivery.aws.errors import AwsRefused
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.lease_holding import TERM, Busy, StoredLeases, lost

_LOOK_AGAIN = 2.0  # seconds
_CLOCKS_DIFFER = timedelta(minutes=15)
_FRESH = 0.1  # of a term: a lease that was written so lately is not written again
_CHANGED = "ConditionalCheckFailedException"
_KEY = "environment"
_NAMES = {"#run": "run", "#token": "token"}  # DynamoDB has these words for itself


@dataclass(frozen=True)
class _Item:
    """What the table has.

    Attributes:
        token: of the last one who took it.
        beat: new with every write.
        run: that holds it; None while it is free.
        holder: "process … on …"; since: ISO 8601; expires: seconds since 1970, by its clock.
    """

    token: int = 0
    beat: str = ""
    run: str | None = None
    holder: str = ""
    since: str = ""
    expires: float = 0.0

    def __str__(self) -> str:
        return f"run {self.run} ({self.holder}, since {self.since})"

    @classmethod
    def read(cls, item: Mapping[str, Mapping[str, str]] | None) -> Self:
        """From DynamoDB's own form; an item that is not there is a free one."""
        if item is None:
            return cls()
        values = {name: next(iter(value.values())) for name, value in item.items()}
        return cls(
            int(values["token"]),
            values["beat"],
            values.get("run"),
            values["holder"],
            values["since"],
            float(values["expires"]),
        )


class DynamoLeases(StoredLeases):
    """`Leases` in a table.

    Args:
        session: opens the way to the table's account; asked once, when the first lease is wanted.
        table: its name.
        project: whose environments they are: other projects have environments of the same names.
        term: how long a lease lasts without renewal.
        clock: the time.
    """

    def __init__(
        self,
        session: Callable[[], Awaitable[AwsSession]],
        *,
        table: str,
        project: str,
        term: timedelta = TERM,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.table = table
        self.project = project
        super().__init__(term=term, clock=clock, every=_LOOK_AGAIN)
        self._session = session
        self._opened: AwsSession | None = None
        self._opening = anyio.Lock()
        self._silent: dict[str, tuple[str, float]] = {}

    async def holder(self, environment: str) -> str | None:
        """As `Leases.holder`."""
        item = await self._read(environment)
        return str(item) if item.run is not None and not self._over(item) else None

    async def take(self, environment: str, run: str) -> _DynamoLease | Busy:
        """Take it, or say who has it; a single attempt."""
        item = await self._read(environment)
        if item.run is not None:
            if not self._over(item):
                return Busy(str(item))
            if not self._gone(environment, item):
                return Busy(str(item), silent=True)
        lease = _DynamoLease(self, environment, item.token + 1)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        since = self.clock.now().isoformat(timespec="seconds")
        beat = uuid.uuid4().hex
        try:
            await lease.write(
                "SET #token = :token, beat = :beat, #run = :run, holder = :holder, since = :since,"
                " expires = :expires",
                "attribute_not_exists(environment) OR (#token = :seen AND beat = :before)",
                beat,
                run={"S": run},
                holder={"S": holder},
                since={"S": since},
                seen={"N": str(item.token)},
                before={"S": item.beat},
            )
        except AwsRefused as error:
            if error.code != _CHANGED:
                raise
            item = await self._read(environment)
            if item.beat != beat:  # it is ours when only the answer was lost and asked for again
                return Busy(str(item)) if item.run else Busy("somebody else just now", silent=True)
        return lease

    def _over(self, item: _Item) -> bool:
        return item.expires <= self.clock.now().timestamp()

    def _gone(self, environment: str, item: _Item) -> bool:
        """Whether the holder of a lease that seems over is certain to have stopped."""
        now = self.clock.monotonic()
        if self.clock.now().timestamp() - item.expires > _CLOCKS_DIFFER.total_seconds():
            return True
        beat, since = self._silent.get(environment, ("", now))
        if beat != item.beat:
            self._silent[environment] = (item.beat, now)
            return False
        return now - since >= self.term.total_seconds()

    async def _read(self, environment: str) -> _Item:
        aws = await self.session()
        answer = await aws.call(
            "dynamodb",
            "GetItem",
            TableName=self.table,
            Key=self._key(environment),
            ConsistentRead=True,
        )
        return _Item.read(answer.get("Item"))

    async def session(self) -> AwsSession:
        """The way to the table."""
        async with self._opening:
            if self._opened is None:
                self._opened = await self._session()
            return self._opened

    def _key(self, environment: str) -> dict[str, Any]:
        return {_KEY: {"S": f"{self.project}/{environment}"}}


class _DynamoLease:
    """A lease that this process took."""

    def __init__(self, leases: DynamoLeases, environment: str, token: int) -> None:
        self._leases = leases
        self._environment = environment
        self._token = token
        self._written: tuple[float, datetime] | None = None

    @property
    def token(self) -> int:
        return self._token

    async def check(self) -> None:
        if self._younger(self._leases.term * _FRESH):
            return  # nobody can have taken it: that takes a whole term of silence
        try:
            await self.write(
                "SET beat = :beat, expires = :expires",
                "#token = :token AND attribute_exists(#run)",
                uuid.uuid4().hex,
            )
        except TargetFailed as error:
            if isinstance(error, AwsRefused) and error.code == _CHANGED:
                self._written = None
                item = await self._leases._read(self._environment)
                how = f"{item} has it" if item.run else "it was released"
                raise lost(self._environment, how) from error
            if not self._younger(self._leases.term):
                how = f"it could not be renewed in time: {error.message}"
                raise lost(self._environment, how) from error

    async def release(self) -> None:
        with suppress(TargetFailed):
            await self.write(
                "SET beat = :beat, expires = :expires REMOVE #run",
                "#token = :token",
                uuid.uuid4().hex,
            )

    async def write(self, update: str, condition: str, beat: str, **values: Any) -> None:
        """Change the item where the condition holds, and remember when that began.

        Raises:
            AwsRefused: it does not hold, or the table is closed.
            AwsUnreachable: whether it was changed is not known.
        """
        clock = self._leases.clock
        began = (clock.monotonic(), clock.now())
        expires = (clock.now() + self._leases.term).timestamp()
        given = {
            "token": {"N": str(self._token)},
            "beat": {"S": beat},
            "expires": {"N": f"{expires:.3f}"},
            **values,
        }
        aws = await self._leases.session()
        await aws.call(
            "dynamodb",
            "UpdateItem",
            TableName=self._leases.table,
            Key=self._leases._key(self._environment),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeNames=_NAMES,
            ExpressionAttributeValues={f":{name}": value for name, value in given.items()},
        )
        self._written = began

    def _younger(self, age: timedelta) -> bool:
        """Whether it was written less than that ago, by the stopwatch and by the clock."""
        if self._written is None:
            return False
        clock, (began, at) = self._leases.clock, self._written
        # A machine that was asleep has a stopwatch that stood still.
        return clock.monotonic() - began < age.total_seconds() and clock.now() - at < age
