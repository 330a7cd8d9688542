"""One account and region, entered as one role for one rollout.

    aws = await AwsSession.open(production, run=run)      # role assumed, identity compared
    await aws.call("ecs", "DescribeClusters", clusters=["shop-production"])

Before the first write it is certain who calls (account and role, by STS's own word) and where. The
session is named after the run, so that the account's records name it. Credentials come from STS,
last an hour and are renewed before they end; keys that do not expire are refused unless the
account's endpoint is a simulation on this machine.

boto3 blocks, so each call runs in a thread. A read that is cancelled is abandoned; a write is
waited for, so that whoever undoes it knows that it is over.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread

from buildonce.config.aws import AccountConfig, role_arn
from buildonce.delivery.aws.errors import (
    AwsRefused,
    AwsUnreachable,
    NoCredentials,
    WrongIdentity,
)
from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.errors import BuildonceError
from buildonce.loopback import is_loopback

SESSION = timedelta(hours=1)
"""How long assumed credentials last; they are renewed in the last quarter of it."""

_AT_ONCE = 8
"""Calls of one session that run at the same time."""

_ATTEMPTS = 6
_READS = ("Describe", "Get", "List", "BatchGet", "Query")

Connect = Callable[[], Any]
"""Makes the botocore session that everything else is made from; tests put a simulation into it."""


class Entrance(Protocol):
    """What says where to go and as whom: an environment, or the table of leases."""

    @property
    def name(self) -> str: ...
    @property
    def account_config(self) -> AccountConfig: ...
    @property
    def region(self) -> str | None: ...
    @property
    def role(self) -> str | None: ...
    @property
    def external_id(self) -> str | None: ...


class AwsSession:
    """Calls to one account and region; made by `open`.

    Attributes:
        account, region: where every call goes.
        clock: by which waits go.
    """

    def __init__(self, environment: Entrance, core: Any, *, run: str, clock: Clock) -> None:
        self.account = environment.account_config.id
        self.region = environment.region or ""
        self.clock = clock
        self.partition: str = core.get_partition_for_region(self.region)
        self._endpoint = environment.account_config.endpoint
        self._environment = environment
        self._core = core
        self._run = run
        self._role = role_arn(environment.role or "", self.account, partition=self.partition)
        self._first: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._making = threading.Lock()
        self._limit = anyio.CapacityLimiter(_AT_ONCE)

    @classmethod
    async def open(
        cls,
        environment: Entrance,
        *,
        run: str,
        clock: Clock = SYSTEM_CLOCK,
        connect: Connect | None = None,
    ) -> AwsSession:
        """Assume the environment's role, and make sure that this is the account it names.

        Args:
            environment: a place of one region, or what else is in an account.
            run: what the session is named after.
            clock: by which credentials end and waits go.
            connect: makes the botocore session; the machine's usual one when None.

        Raises:
            NoCredentials: there are none, or they never expire.
            WrongIdentity: they lead to another account or role.
            AwsRefused: the role may not be assumed.
        """
        core = await anyio.to_thread.run_sync(connect or _connect)
        session = cls(environment, core, run=run, clock=clock)
        await anyio.to_thread.run_sync(session._assume)
        await session._must_be_me()
        return session

    @property
    def simulated(self) -> bool:
        """The account's API is one on this machine."""
        return self._endpoint is not None and is_loopback(self._endpoint)

    @property
    def where(self) -> str:
        """Account and region, for messages."""
        return f"account {self.account} ({self.region})"

    def arn(self, service: str, resource: str, *, region: str | None = None) -> str:
        """The ARN of something in this account and region."""
        there = self.region if region is None else region
        return f"arn:{self.partition}:{service}:{there}:{self.account}:{resource}"

    async def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Call an operation by the name that it has in the service's model.

        Raises:
            AwsRefused: it answered with an error.
            AwsUnreachable: no answer came, or none in time, after several attempts.
        """
        return await self.call_in(self.region, service, operation, **parameters)

    async def call_in(
        self, region: str, service: str, operation: str, /, **parameters: Any
    ) -> dict[str, Any]:
        """The same in another region of the account: for what is there and only read."""
        return await anyio.to_thread.run_sync(
            lambda: self._call(region, service, operation, parameters),
            abandon_on_cancel=operation.startswith(_READS),
            limiter=self._limit,
        )

    def must_be_here(self, arn: str, what: str) -> str:
        """The ARN, once it is sure to be of this account and region.

        Raises:
            WrongIdentity: it is not.
        """
        parts = arn.split(":")
        if len(parts) < 6 or parts[3] != self.region or parts[4] != self.account:
            raise WrongIdentity(
                f"{what} is {arn}, which is not in {self.where}",
                remedy=f"correct `account` or `region` of {self._environment.name}",
            )
        return arn

    def _call(
        self, region: str, service: str, operation: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        client = self._client(service, region)
        return _asked(client, service, operation, parameters, where=self.where)

    def _client(self, service: str, region: str) -> Any:
        # Making a client is not safe in threads, using one is.
        with self._making:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._make(service, region)
            return self._clients[service, region]

    def _make(self, service: str, region: str) -> Any:
        from botocore.config import Config

        return self._core.create_client(
            service,
            region_name=region,
            endpoint_url=self._endpoint,
            config=Config(
                retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=_AT_ONCE,
                # An address in the machine's environment must not lead elsewhere.
                ignore_configured_endpoint_urls=True,
                user_agent_extra=f"buildonce/{_session_name(self._run)}",
            ),
        )

    def _assume(self) -> None:
        from botocore.credentials import RefreshableCredentials

        own = self._core.get_credentials()
        if own is None:
            raise NoCredentials(
                f"there are no credentials to assume the role of {self._environment.name} with",
                remedy="aws sso login, or run where the CI vendor gives a web identity",
            )
        if own.get_frozen_credentials().token is None and not self.simulated:
            raise NoCredentials(
                "the credentials here are a key that never expires, which buildonce does not use",
                remedy="aws sso login, or a role of the machine, or the CI vendor's web identity; "
                "unset AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        # Made before the change below, so that it goes on with (and renews) what is there now.
        self._first = self._make("sts", self.region)
        found = self._assumed()
        renewed = RefreshableCredentials(
            found["access_key"],
            found["secret_key"],
            found["token"],
            datetime.fromisoformat(found["expiry_time"]),
            refresh_using=self._assumed,
            method="assume-role",
            time_fetcher=self.clock.now,
            advisory_timeout=int(SESSION.total_seconds() / 4),
            mandatory_timeout=int(SESSION.total_seconds() / 8),
        )
        # From here on every client of this session is the role; nothing can use the first ones.
        self._core._credentials = renewed

    def _assumed(self) -> dict[str, str]:
        parameters: dict[str, Any] = {
            "RoleArn": self._role,
            "RoleSessionName": _session_name(self._run),
            "DurationSeconds": int(SESSION.total_seconds()),
        }
        if self._environment.external_id is not None:
            parameters["ExternalId"] = self._environment.external_id
        where = f"account {self.account}"
        answer = _asked(self._first, "sts", "AssumeRole", parameters, where=where)
        self._must_be_role(answer["AssumedRoleUser"]["Arn"])
        found = answer["Credentials"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": found["Expiration"].isoformat(),
        }

    async def _must_be_me(self) -> None:
        me = await self.call("sts", "GetCallerIdentity")
        if me["Account"] != self.account:
            raise WrongIdentity(
                f"{self._environment.name} is to be in account {self.account}, but the role leads "
                f"to account {me['Account']}; nothing was changed",
                remedy=f"correct `role` or `account` of {self._environment.name}",
            )
        self._must_be_role(me["Arn"])

    def _must_be_role(self, arn: str) -> None:
        # arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION; the role's path is not in it.
        wanted = f"assumed-role/{self._role.rpartition('/')[2]}/{_session_name(self._run)}"
        parts = arn.split(":", 5)
        if len(parts) != 6 or parts[4] != self.account or parts[5] != wanted:
            raise WrongIdentity(
                f"{self._environment.name} is to be entered as {self._role}, but the caller is "
                f"{arn}; nothing was changed",
                remedy=f"correct `role` or `account` of {self._environment.name}",
            )


def _asked(
    client: Any, service: str, operation: str, parameters: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    from botocore import exceptions, xform_name
    from botocore.parsers import ResponseParserError

    try:
        answer = getattr(client, xform_name(operation))(**parameters)
    except exceptions.ClientError as error:
        said = error.response.get("Error", {})
        raise AwsRefused(
            service, operation, str(said.get("Code", "")), str(said.get("Message", "")), where
        ) from error
    except (exceptions.ParamValidationError, exceptions.UnknownServiceError):
        raise  # ours: the request could never have been right
    except (exceptions.NoCredentialsError, exceptions.CredentialRetrievalError) as error:
        raise NoCredentials(
            f"there are no credentials for {where}: {error}", remedy="aws sso login"
        ) from error
    except ResponseParserError as error:
        raise AwsUnreachable(
            f"what answered {operation} in {where} is not {service}: {str(error)[:200]}",
            remedy="look for a proxy on the way, or a mistaken `endpoint` of the account",
        ) from error
    except (exceptions.BotoCoreError, exceptions.HTTPClientError) as error:
        raise AwsUnreachable(
            f"{service} did not answer {operation} in {where}: {error}",
            remedy="buildonce doctor; then buildonce resume",
        ) from error
    answer.pop("ResponseMetadata", None)
    return cast(dict[str, Any], answer)


def _session_name(run: str) -> str:
    return re.sub(r"[^\w+=,.@-]", "-", f"buildonce-{run or 'look'}")[:64]


def _connect() -> Any:
    try:
        import botocore.session
    except ModuleNotFoundError as error:
        raise BuildonceError(
            "environments in AWS accounts need boto3, which is not installed",
            remedy="pip install 'buildonce[aws]'",
        ) from error
    session = botocore.session.Session()
    session.register_component("data_loader", _models())
    return session


@cache
def _models() -> Any:
    """botocore's descriptions of the services, read once for all sessions: megabytes of JSON."""
    from botocore.loaders import create_loader

    return create_loader()
