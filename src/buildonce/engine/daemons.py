"""Which daemon a session uses: the user's own (`BUILDKIT_HOST`), or one started for it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from buildonce.engine import remote
from buildonce.engine.buildkit import TLS, daemon
from buildonce.engine.buildkit.daemon_setup import DaemonConfig, Registry
from buildonce.engine.options import EngineOptions
from buildonce.errors import BuildonceError


@dataclass(frozen=True, slots=True)
class Found:
    """A daemon that can be used.

    Attributes:
        own_networks: its commands have network namespaces of their own.
        privileged: its commands may have all privileges, if they ask.
        folder: where it keeps its state; None: it is not ours.
        log: where it writes its messages; None: it is not ours.
        tls: what it takes to speak with it.
        network_reason: why its commands have no network namespaces of their own.
        routed: this machine reaches the addresses of its containers.
        note: what the user should know of its start; "" when all is well.
    """

    address: str
    own_networks: bool
    privileged: bool
    folder: Path | None = None
    log: Path | None = None
    tls: TLS | None = None
    network_reason: str = ""
    routed: bool = True
    note: str = ""


@asynccontextmanager
async def find_or_start(options: EngineOptions) -> AsyncIterator[Found]:
    """The daemon of `options`, for as long as this is entered.

    Raises:
        BuildonceError: it cannot be found or started; says what to do.
    """
    if options.address:
        files = remote.tls(options.tls, options.address)
        await remote.check(options.address, files)
        yield Found(options.address, own_networks=False, privileged=False, tls=files, routed=False)
        return
    if options.buildkitd is None:
        raise BuildonceError(
            "there is no buildkitd to run containers with",
            remedy="buildonce setup (it builds one), or point BUILDKIT_HOST to yours",
        )
    config = DaemonConfig(
        registries={
            host: Registry(
                http=registry.plain_http,
                mirrors=registry.mirrors,
                ca=tuple(str(file) for file in registry.ca),
            )
            for host, registry in options.registries.items()
        },
        runc=options.runc,
        shim=options.shim if os.geteuid() != 0 else None,
        environment=dict(options.proxies)
        | ({"SSL_CERT_FILE": str(options.ca)} if options.ca else {}),
    )
    folder = options.cache / "buildkit"
    async with daemon.start(options.buildkitd, folder, config=config) as running:
        yield Found(
            running.address,
            running.network == "bridge",
            privileged=config.privileged,
            folder=folder,
            log=running.log,
            network_reason=running.network_reason,
            routed=running.routed,
            note=running.note,
        )
