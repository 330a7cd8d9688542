"""What an engine session is started with.

`commands.py` fills it through `buildonce.toolchain`; the engine itself looks nothing up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buildonce.engine.remote_cache import RemoteCache


@dataclass(frozen=True, slots=True)
class Registry:
    """How to reach one registry host (`127.0.0.1:5080`, `docker.io`).

    Attributes:
        mirrors: hosts to ask first, in this order.
        plain_http: speak HTTP, not HTTPS.
        ca: files of further certificate authorities to trust for it (PEM).
    """

    plain_http: bool = False
    mirrors: tuple[str, ...] = ()
    ca: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the parts of the engine are, and what the host hands on to them.

    Attributes:
        cache: folder that may be deleted at any time; the daemon's state is in `cache/buildkit`.
        log: file that the engine and the daemon write to; error messages refer to it.
        address: a buildkitd that runs already (`unix://…`, `tcp://…`: BUILDKIT_HOST); None: start
            one from `buildkitd`, or find the one started before.
        buildkitd: the daemon's program; needed unless `address` is given.
        runc: the OCI runtime it uses.
        shim: the static program that runs inside every container.
        tls: folder with `ca.pem`, `cert.pem` and `key.pem` for a `tcp://` address.
        registries: by host, as it stands in image references.
        ca: file with the certificate authorities that the host trusts, put into every exec; None
            leaves containers with their own.
        proxies: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` for the daemon and for every exec, without
            any layer or cache key showing them.
        indexes: `PIP_INDEX_URL` and the like, for every exec in the same way.
        workdir: what relative paths of `host.directory` start from.
        images: local OCI layouts by name, served as if from a registry.
        remote_cache: a cache in a registry or a folder; None: only the daemon's own.
        api_version: the version of Dagger's API that clients are told.
    """

    cache: Path
    log: Path
    address: str | None = None
    buildkitd: Path | None = None
    runc: Path | None = None
    shim: Path | None = None
    tls: Path | None = None
    registries: Mapping[str, Registry] = field(default_factory=dict)
    ca: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)
    workdir: Path = field(default_factory=Path.cwd)
    images: Mapping[str, Path] = field(default_factory=dict)
    remote_cache: RemoteCache | None = None
    api_version: str = "v0.21.11"
