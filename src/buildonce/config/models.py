"""The tables of `pipeline.toml` as models, and reading a file into them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from buildonce.config.base import NAME, Duration, Table, known_keys
from buildonce.config.lines import KeyPath, Lines
from buildonce.config.mistakes import ConfigError, did_you_mean, explain

PROFILE_VARIABLE = "BUILDONCE_PROFILE"

# Registry host with an optional port, then at least one path component (OCI distribution grammar).
_REPOSITORY = r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"


class ProjectConfig(Table):
    """What is shipped, and where its image is pushed."""

    name: Annotated[str, Field(pattern=NAME)]
    repository: Annotated[str, Field(pattern=_REPOSITORY)]


class StageConfig(Table):
    """How long a stage may take. It is ended at `budget`; past `warn` it is only said."""

    budget: Duration | None = None
    warn: Duration | None = None

    @model_validator(mode="after")
    def _warning_comes_first(self) -> Self:
        if self.warn and self.budget and self.warn >= self.budget:
            raise ValueError("`warn` must be shorter than `budget`")
        return self


class EnvironmentConfig(Table):
    """Where a release runs. Configuration differs between environments; the image never does."""

    name: Annotated[str, Field(pattern=NAME)]
    target: Literal["local"] = "local"
    port: Annotated[int, Field(ge=1, le=65535, strict=True)]
    configuration: dict[str, str] = Field(default_factory=dict)
    approval: bool = False
    deploy: Literal["automatic", "on-demand"] = "automatic"
    after: str | None = None
    health_path: Annotated[str, Field(pattern="^/")] = "/healthz"
    health_timeout: Duration = timedelta(seconds=60)
    smoke_path: Annotated[str, Field(pattern="^/")] = "/healthz"
    mount_ledger: bool = False

    @property
    def url(self) -> str:
        """The address that users of this environment ask."""
        return f"http://127.0.0.1:{self.port}"


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
    stages: dict[str, StageConfig] = Field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    ledger: LedgerConfig = LedgerConfig()
    engine: EngineConfig = EngineConfig()
    environments: dict[str, EnvironmentConfig] = Field(default_factory=dict)
    # Not of the file: their aliases cannot be keys that somebody means to write.
    path: Annotated[Path, Field(alias="<path>", exclude=True)]
    profile: Annotated[str | None, Field(alias="<profile>", exclude=True)] = None
    _lines: Lines = PrivateAttr(default_factory=lambda: Lines({}))
    _origin: KeyPath = PrivateAttr(default=())

    @classmethod
    def load(cls, path: str | Path, *, profile: str | None = None) -> Config:
        """Read a configuration file.

        Args:
            path: the TOML file.
            profile: name of the profile to lay over it; None takes it from BUILDONCE_PROFILE.

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
        data, origin = _lay_over(data, profile, path)
        for name, table in _tables(data.get("environments")):
            table.setdefault("name", name)
        try:
            config = cls.model_validate({**data, "<path>": path, "<profile>": profile})
        except ValidationError as error:
            raise explain(
                error.errors(include_url=False), path, lines, origin, cls.known_keys
            ) from None
        config._lines, config._origin = lines, origin
        return config

    def where(self, *keys: str) -> str:
        """ "file:line" of a key, for a message; the file alone when the key has no line."""
        line = self._lines.line((*self._origin, *keys)) or self._lines.nearest(keys)
        return f"{self.path}:{line}" if line else str(self.path)

    @model_validator(mode="after")
    def _environments_agree(self) -> Self:
        ports: dict[int, str] = {}
        for name, environment in self.environments.items():
            if environment.name != name:
                raise ValueError(f"environments.{name}: `name` must be left out or be the same")
            if environment.port in ports:
                raise ValueError(
                    f"environments.{name}.port: {environment.port} is already the port of "
                    f"{ports[environment.port]}"
                )
            ports[environment.port] = name
            seen = {name}
            while environment.after is not None:
                if environment.after not in self.environments:
                    raise ValueError(
                        f"environments.{environment.name}.after: there is no environment "
                        f"{environment.after!r}{did_you_mean(environment.after, self.environments)}"
                    )
                environment = self.environments[environment.after]
                if environment.name in seen:
                    raise ValueError(f"environments.{name}.after: goes round in a circle")
                seen.add(environment.name)
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

    def environment(self, name: str) -> EnvironmentConfig:
        """The environment of that name.

        Raises:
            ConfigError: there is none.
        """
        try:
            return self.environments[name]
        except KeyError:
            raise self._missing("environments", name, self.environments, "port = 8101") from None

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


def _lay_over(
    data: dict[str, Any], profile: str | None, path: Path
) -> tuple[dict[str, Any], KeyPath]:
    """The tables with the profile's values in them, and the key path of that profile."""
    profiles = data.pop("profiles", {})
    if profile is None:
        return data, ()
    if not isinstance(profiles, dict) or not isinstance(profiles.get(profile), dict):
        known = list(profiles) if isinstance(profiles, dict) else []
        raise ConfigError(
            f"{path}: there is no profile {profile!r}{did_you_mean(profile, known)}",
            remedy=f"set {PROFILE_VARIABLE} to one of: {', '.join(known) or '(none defined)'}; "
            "or unset it",
        )
    return _merge(data, profiles[profile]), ("profiles", profile)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged
