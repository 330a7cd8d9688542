"""What the environment tells the dashboard about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from buildonce.errors import BuildonceError, ExitCode


@dataclass(frozen=True)
class Settings:
    """The dashboard's configuration.

    Attributes:
        ledger: the ledger's file; None when none is named.
        version, revision, digest: of the release that this process is, "" when not told.
        environment: where it runs, "" when not told.
        port: where it listens.
    """

    ledger: Path | None = None
    version: str = ""
    revision: str = ""
    digest: str = ""
    environment: str = ""
    port: int = 8080

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Settings:
        """Read BUILDONCE_LEDGER, _VERSION, _REVISION, _DIGEST, _ENVIRONMENT and PORT.

        Raises:
            BuildonceError: PORT is no port.
        """
        ledger = variables.get("BUILDONCE_LEDGER", "")
        return cls(
            ledger=Path(ledger) if ledger else None,
            version=variables.get("BUILDONCE_VERSION", ""),
            revision=variables.get("BUILDONCE_REVISION", ""),
            digest=variables.get("BUILDONCE_DIGEST", ""),
            environment=variables.get("BUILDONCE_ENVIRONMENT", ""),
            port=_port(variables.get("PORT") or "8080"),
        )


class SettingsError(BuildonceError):
    """The environment says something that cannot be meant."""

    exit_code = ExitCode.USAGE


def _port(text: str) -> int:
    # A port of 0 lets the kernel choose one, as tests do.
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise SettingsError(f"PORT is {text!r}, not a port", remedy="set PORT to 1..65535")
