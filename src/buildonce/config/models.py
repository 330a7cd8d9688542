"""The tables of `pipeline.toml` as models, and reading a file into them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from buildonce.config.advisories import AdvisoriesConfig
from buildonce.config.approvals import PublicKey, check_approvers
from buildonce.config.aws import AccountConfig
from buildonce.config.base import NAME, Duration, Table, known_keys
from buildonce.config.environments import EnvironmentConfig, check_environments
from buildonce.config.leases import LeasesConfig
from buildonce.config.lines import KeyPath, Lines
from buildonce.config.mistakes import ConfigError, did_you_mean, explain
from buildonce.config.policies import (
    DEFAULT,
    DEFAULT_POLICY,
    WITHOUT_POLICY,
    PolicyConfig,
    check_policies,
)
from buildonce.config.profiles import PROFILE_VARIABLE, lay_over, line_of
from buildonce.config.rollout import WavesConfig, check_waves
from buildonce.config.signing import SigningConfig
from buildonce.config.tools import ToolConfig
from buildonce.config.waivers import WaiverConfig

_PLATFORM = r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$"
# Registry host with an optional port, then at least one path component (OCI distribution grammar).
_REPOSITORY = r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"


class ProjectConfig(Table):
    """What is shipped, and where its image is pushed.

    Attributes:
        platforms: what the image is built for ("linux/arm64"); of several, the index is the
            artifact. Left out: the platform of the engine.
    """

    name: Annotated[str, Field(pattern=NAME)]
    repository: Annotated[str, Field(pattern=_REPOSITORY)]
    platforms: tuple[Annotated[str, Field(pattern=_PLATFORM)], ...] = ()


class StageConfig(Table):
    """How long a stage may take. It is ended at `budget`; past `warn` it is only said."""

    budget: Duration | None = None
    warn: Duration | None = None

    @model_validator(mode="after")
    def _warning_comes_first(self) -> Self:
        if self.warn and self.budget and self.warn >= self.budget:
            raise ValueError("`warn` must be shorter than `budget`")
        return self


class LedgerConfig(Table):
    """Where the record of runs and rollouts is kept; without a path, in the user's data."""

    path: Path | None = None


class EngineCacheConfig(Table):
    """`[engine.cache]`: a cache that outlives the machine; read by `buildonce run` itself.

    Attributes:
        registry: an image reference to keep it under.
        folder: or a folder, that the CI vendor keeps between runs.
        export: write to it; false only reads, as pull requests should.
    """

    registry: str | None = None
    folder: Path | None = None
    export: bool = True


class EngineConfig(Table):
    """`[engine]`: the embedded engine, where it is used."""

    cache: EngineCacheConfig | None = None


class Config(Table):
    """The whole of `pipeline.toml`, with the chosen profile laid over it."""

    project: ProjectConfig
    images: dict[str, str] = Field(default_factory=dict)
    tools: dict[str, ToolConfig] = Field(default_factory=dict)
    stages: dict[str, StageConfig] = Field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    waivers: tuple[WaiverConfig, ...] = ()
    advisories: AdvisoriesConfig = AdvisoriesConfig()
    signing: SigningConfig = SigningConfig()
    ledger: LedgerConfig = LedgerConfig()
    engine: EngineConfig = EngineConfig()
    accounts: dict[str, AccountConfig] = Field(default_factory=dict)
    leases: LeasesConfig | None = None
    environments: dict[str, EnvironmentConfig] = Field(default_factory=dict)
    waves: dict[str, WavesConfig] = Field(default_factory=dict)
    approvers: dict[str, PublicKey] = Field(default_factory=dict)
    policies: dict[str, PolicyConfig] = Field(default_factory=dict)
    # Not of the file: their aliases cannot be keys that somebody means to write.
    path: Annotated[Path, Field(alias="<path>", exclude=True)]
    profile: Annotated[str | None, Field(alias="<profile>", exclude=True)] = None
    _lines: Lines = PrivateAttr(default_factory=lambda: Lines({}))
    _origins: tuple[KeyPath, ...] = PrivateAttr(default=())

    @classmethod
    def load(cls, path: str | Path, *, profile: str | None = None) -> Config:
        """Read a configuration file.

        Args:
            path: the TOML file.
            profile: names of profiles to lay over it, separated by commas; None takes them from
                BUILDONCE_PROFILE.

        Raises:
            ConfigError: the file is missing or says something that cannot be.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the configuration {path} cannot be read: {error}",
                remedy="run the command in the folder that holds it, or create it",
            ) from error
        if profile is None:
            profile = os.environ.get(PROFILE_VARIABLE) or None
        return cls.parse(text, path=path, profile=profile)

    @classmethod
    def parse(cls, text: str, *, path: Path, profile: str | None = None) -> Config:
        """Read configuration text; `path` is where it stands, for messages and relative paths.

        Raises:
            ConfigError: it says something that cannot be.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))
            where = f"{path}:{line.group(1)}" if line else str(path)
            raise ConfigError(
                f"{where}: this is not TOML: {error}", remedy=f"correct {where}"
            ) from error
        lines = Lines.scan(text)
        data, origins = lay_over(data, profile, path)
        for name, table in _tables(data.get("environments")):
            table.setdefault("name", name)
        try:
            config = cls.model_validate({**data, "<path>": path, "<profile>": profile})
        except ValidationError as error:
            raise explain(
                error.errors(include_url=False),
                path,
                lambda keys: line_of(lines, keys, origins),
                cls.known_keys,
            ) from None
        config._lines, config._origins = lines, origins
        return config

    def where(self, *keys: str) -> str:
        """ "file:line" of a key, for a message; the file alone when the key has no line."""
        line = line_of(self._lines, keys, self._origins)
        return f"{self.path}:{line}" if line else str(self.path)

    @model_validator(mode="after")
    def _environments_agree(self) -> Self:
        check_environments(self.environments, self.accounts, self.leases)
        return self

    @model_validator(mode="after")
    def _policies_are_there(self) -> Self:
        check_policies(
            self.policies, {name: place.policy for name, place in self.environments.items()}
        )
        return self

    @model_validator(mode="after")
    def _leases_have_an_account(self) -> Self:
        if self.leases is None:
            return self
        if self.leases.account not in self.accounts:
            hint = did_you_mean(self.leases.account, self.accounts)
            raise ValueError(f"leases.account: there is no account {self.leases.account!r}{hint}")
        self.leases._account = self.accounts[self.leases.account]
        return self

    @model_validator(mode="after")
    def _rollouts_agree(self) -> Self:
        places = {n: [p.name for p in e.places] for n, e in self.environments.items()}
        check_waves(self.waves, places)
        check_approvers(self.approvers, self.environments)
        return self

    @field_validator("checks")
    @classmethod
    def _check_names(cls, checks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in checks:
            if not name.isidentifier():
                raise ValueError(f"checks.{name}: not the name of a Python function")
        return checks

    @classmethod
    def known_keys(cls, keys: KeyPath) -> list[str]:
        """The keys that the table at `keys` may hold."""
        return known_keys(cls, keys)

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is: as configured (relative to the file), else in the user's data."""
        if (configured := self.ledger.path) is not None:
            return (self.path.parent / configured.expanduser()).resolve()
        from buildonce import places

        return places.home() / self.project.name / "ledger.sqlite"

    @property
    def digest(self) -> str:
        """`sha256:…` of the effective configuration: the same values give the same digest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()
        return f"sha256:{hashlib.sha256(canonical).hexdigest()}"

    def image(self, name: str) -> str:
        """The image that `[images]` calls `name`.

        Raises:
            ConfigError: there is none.
        """
        try:
            return self.images[name]
        except KeyError:
            raise self._missing(
                "images", name, self.images, f'{name} = "registry/name:tag"'
            ) from None

    def tool(self, name: str) -> ToolConfig:
        """The program that `[tools]` calls `name`.

        Raises:
            ConfigError: there is none.
        """
        try:
            return self.tools[name]
        except KeyError:
            raise self._missing(
                "tools", name, self.tools, f'image = "registry/{name}:version", path = "/{name}"'
            ) from None

    def environment(self, name: str) -> EnvironmentConfig:
        """The environment of that name, or the place "environment-region" of one.

        Raises:
            ConfigError: there is none.
        """
        for environment in self.environments.values():
            for place in (environment, *environment.places):
                if place.name == name:
                    return place
        raise self._missing("environments", name, self.environments, "port = 8101")

    def policy(self, environment: str) -> tuple[str, PolicyConfig | None]:
        """Name and content of an environment's policy; no content where it is "none".

        Raises:
            ConfigError: there is no such environment.
        """
        name = self.environment(environment).policy or DEFAULT
        return name, None if name == WITHOUT_POLICY else self.policies.get(name, DEFAULT_POLICY)

    def _missing(
        self, table: str, name: str, known: Mapping[str, object], example: str
    ) -> ConfigError:
        hint = did_you_mean(name, known) or (f" (there are: {', '.join(known)})" if known else "")
        header = f"[{table}]" if table == "images" else f"[{table}.{name}]"
        return ConfigError(
            f"{self.path}: {table} has no {name!r}{hint}",
            remedy=f"add `{example}` under {header} in {self.path}",
        )


def _tables(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield from ((name, table) for name, table in value.items() if isinstance(table, dict))
