"""`[environments.NAME]`: where a release runs, and what one environment must know of the others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from buildonce.config.approvals import Approval
from buildonce.config.aws import REGION, AccountConfig, Placement, mistakes
from buildonce.config.base import NAME, Duration
from buildonce.config.leases import LeasesConfig
from buildonce.config.mistakes import did_you_mean
from buildonce.config.rollout import RolloutConfig
from buildonce.config.windows import WindowConfig
from buildonce.loopback import is_loopback


class EnvironmentConfig(Placement):
    """Where a release runs. Configuration differs between environments; the image never does."""

    name: Annotated[str, Field(pattern=NAME)]
    target: Literal["local", "ecs", "lambda"] = "local"
    port: Annotated[
        Annotated[int, Field(ge=1, le=65535, strict=True)] | None, Field(validate_default=True)
    ] = None
    configuration: dict[str, str] = Field(default_factory=dict)
    approval: Approval = None
    rollout: RolloutConfig = RolloutConfig()
    windows: tuple[WindowConfig, ...] = ()
    deploy: Literal["automatic", "on-demand"] = "automatic"
    after: str | None = None
    health_path: Annotated[str, Field(pattern="^/")] = "/healthz"
    health_timeout: Duration = timedelta(seconds=60)
    smoke_path: Annotated[str, Field(pattern="^/")] = "/healthz"
    mount_ledger: bool = False
    policy: str | None = None

    _account: AccountConfig | None = PrivateAttr(default=None)
    _leases: LeasesConfig | None = PrivateAttr(default=None)

    @field_validator("port")
    @classmethod
    def _local_has_a_port(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port is None and info.data.get("target") == "local":
            raise ValueError("this key is missing")
        return port

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if problem := mistakes(self.name, self.target, self.port, self):
            raise ValueError(problem)
        return self

    @property
    def url(self) -> str:
        """The address that users of this environment ask; empty where only its target knows it."""
        return self.address or (f"http://127.0.0.1:{self.port}" if self.port else "")

    @property
    def local_port(self) -> int:
        """The port of this machine where it answers.

        Raises:
            ValueError: it answers elsewhere.
        """
        port = self.port or (urlsplit(self.url).port if is_loopback(self.url) else None)
        if port is None:
            raise ValueError(f"{self.name} does not answer on this machine")
        return port

    @property
    def places(self) -> tuple[EnvironmentConfig, ...]:
        """One for each region, called "environment-region"; itself where there is only one."""
        return tuple(self._in(region) for region in self.regions) or (self,)

    @property
    def account_config(self) -> AccountConfig:
        """The account of an environment that is not local."""
        assert self._account is not None, "set where the whole configuration was checked"
        return self._account

    @property
    def leases(self) -> LeasesConfig | None:
        """Where its lease is; None for a place of this machine's own."""
        return self._leases

    def _in(self, region: str) -> EnvironmentConfig:
        changes: dict[str, Any] = {
            "name": f"{self.name}-{region}",
            "region": region,
            "regions": (),
            "registry": self.registry and self.registry.replace(REGION, region),
        }
        return self.model_copy(update=changes)


def check_environments(
    environments: Mapping[str, EnvironmentConfig],
    accounts: Mapping[str, AccountConfig],
    leases: LeasesConfig | None,
) -> None:
    """Make sure that environments agree with each other, and give each its account.

    Raises:
        ValueError: two have one port, or one is in an account or after an environment that is not.
    """
    ports: dict[int, str] = {}
    for name, environment in environments.items():
        if environment.name != name:
            raise ValueError(f"environments.{name}: `name` must be left out or be the same")
        _check_account(environment, environments, accounts)
        environment._leases = leases if environment.account else None
        if environment.port is not None:
            if environment.port in ports:
                raise ValueError(
                    f"environments.{name}.port: {environment.port} is already the port of "
                    f"{ports[environment.port]}"
                )
            ports[environment.port] = name
        _check_order(environment, environments)


def _check_account(
    environment: EnvironmentConfig,
    environments: Mapping[str, EnvironmentConfig],
    accounts: Mapping[str, AccountConfig],
) -> None:
    where, name = f"environments.{environment.name}", environment.account
    for region in environment.regions:
        if f"{environment.name}-{region}" in environments:
            raise ValueError(
                f"{where}.regions: {environment.name}-{region} is an environment already"
            )
    if name is None:
        return
    if name not in accounts:
        raise ValueError(
            f"{where}.account: there is no account {name!r}{did_you_mean(name, accounts)}"
        )
    account = accounts[name]
    role = environment.role or ""
    if role.startswith("arn:") and role.split(":")[4] != account.id:
        raise ValueError(
            f"{where}.role: the role is of account {role.split(':')[4]}, but {name} is {account.id}"
        )
    environment._account = account


def _check_order(first: EnvironmentConfig, environments: Mapping[str, EnvironmentConfig]) -> None:
    """Follow `after` from an environment to where it begins."""
    seen, one = {first.name}, first
    while one.after is not None:
        if one.after not in environments:
            hint = did_you_mean(one.after, environments)
            raise ValueError(
                f"environments.{one.name}.after: there is no environment {one.after!r}{hint}"
            )
        one = environments[one.after]
        if one.name in seen:
            raise ValueError(f"environments.{first.name}.after: goes round in a circle")
        seen.add(one.name)
