"""What every command gets of the client's machine: certificate authorities, proxies, indexes.

It is in no layer and no cache key: the daemon asks for it, as for a secret, when a command starts.
A command with a network of its own does not reach this machine's loopback, so a proxy or an index
that listens there is led to it by a service, under that service's address. An index's address with
a login is a secret, which programs hand over themselves: what runs in a container may be anyone's.

    text = await HostSettings(engine).document()
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from buildonce.engine import lowering
from buildonce.engine.errors import QueryFailed

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

# What common programs read to find certificate authorities other than their own.
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
)

# Hosts by name, for which a proxy is not used, or a certificate not checked: no places to lead to.
_UNPROXIED = ("NO_PROXY", "no_proxy")
_TRUSTED = ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST")
# `http://me:word@localhost:3128/`, or `127.0.0.1:3128` alone.
_PLACE = re.compile(r"(?<![\w.:-])(localhost|127\.0\.0\.1|\[::1\]):(\d{1,5})\b")
_LOGIN = re.compile(r"://([^\s/@:,|]+)(?::([^\s/@]*))?@")
_SECRET_LENGTH = 6  # characters; a shorter one is also part of words that are no secret


class HostSettings:
    """The settings of one session."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        options = engine.options
        # However short: not even a word that is too short to be scrubbed is handed over.
        self._withheld = [name for name, value in options.indexes.items() if _LOGIN.search(value)]
        indexes = {k: v for k, v in options.indexes.items() if k not in self._withheld}
        self._variables = {**indexes, **options.proxies}
        self._secrets = logins(self._variables.values())
        self._ports = loopback_ports(self._variables) if engine.own_networks else []
        self._fixed: dict[str, str] = {}
        if options.ca is not None:
            self._fixed = dict.fromkeys(CA_VARIABLES, lowering.HOST_CA)

    async def document(self) -> bytes:
        """As the shim reads it (`hostSettings` in engine/shim/exec.go)."""
        for name in self._withheld:
            self._engine.steps.note(
                f"{name} has a login in it, so commands do not get it: hand it over to those that "
                "need it, with_secret_variable"
            )
        found = self._variables
        if self._ports:
            try:
                found = moved(found, await self._leading())
            except QueryFailed as error:
                ports = ", ".join(map(str, self._ports))
                self._engine.steps.note(
                    f"commands do not reach this machine's {ports}, where a proxy or a package "
                    f"index is: {error}"
                )
        told = {"env": {**found, **self._fixed}, "secrets": self._secrets}
        return json.dumps(told).encode()

    async def _leading(self) -> str:
        """The address under which commands reach those ports of this machine's loopback."""
        services = self._engine.services
        service = services.to_host("localhost", [(port, port, "TCP") for port in self._ports])
        # By a name of its own: `host.service` of the same ports is the program's, which may end it.
        return (await services.start(services.named(service, "host"))).address


def loopback_ports(variables: Mapping[str, str]) -> list[int]:
    """The ports of this machine's loopback where a proxy or an index is."""
    found = {
        int(port)
        for name, value in variables.items()
        if name not in _UNPROXIED
        for _, port in _PLACE.findall(value)
    }
    return sorted(port for port in found if 0 < port < 65536)


def logins(values: Iterable[str]) -> list[str]:
    """The passwords, and names that stand without one, in addresses such as
    `https://me:password@index.example.org/simple`, as they stand there and as they are meant."""
    found = {password or user for value in values for user, password in _LOGIN.findall(value)}
    found |= {unquote(word) for word in found}
    return sorted(word for word in found if len(word) >= _SECRET_LENGTH)


def moved(variables: Mapping[str, str], address: str) -> dict[str, str]:
    """The variables with what is on this machine's loopback at `address`."""
    found = {name: _PLACE.sub(rf"{address}:\2", value) for name, value in variables.items()}
    # A proxy elsewhere would not find it.
    found |= {name: ",".join(filter(None, (variables.get(name), address))) for name in _UNPROXIED}
    return found | {name: f"{variables[name]} {address}" for name in _TRUSTED if name in variables}
