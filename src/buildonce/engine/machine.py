"""What the engine is given on this machine: its programs and folders, certificates, registries.

options = await engine_options(os.environ)

The one module of the engine that knows where the machine keeps things.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from buildonce import places
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.options import EngineOptions, Registry
    from buildonce.engine.remote_cache import RemoteCache


# How this machine reaches others, and where packages come from.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_INDEXES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INSECURE_HOST",
    "NPM_CONFIG_REGISTRY",
    "GOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
)


def log_file(cache: Path) -> Path:
    """Where the engine writes what users need not see."""
    return cache / "logs" / "engine.log"


async def engine_options(environ: Mapping[str, str]) -> EngineOptions:
    """The engine's options here; builds the programs that the machine lacks.

    Raises:
        BuildonceError: a program cannot be had, or a configuration says what cannot be.
    """
    from buildonce.engine.options import EngineOptions
    from buildonce.toolchain import ensure, find

    cache = places.cache()
    address = environ.get("BUILDKIT_HOST") or None
    shim = await ensure("shim")
    buildkitd = None if address else await ensure("buildkitd")
    runc = None if address else await asyncio.to_thread(find, "runc")
    tls = environ.get("BUILDONCE_BUILDKIT_TLS")
    return EngineOptions(
        cache=cache,
        log=log_file(cache),
        address=address,
        buildkitd=buildkitd.path if buildkitd else None,
        runc=runc.path if runc else None,
        shim=shim.path,
        tls=Path(tls).expanduser() if tls else None,
        registries=_registries(environ),
        ca=_certificates(environ),
        proxies=_given(environ, (*_PROXIES, *map(str.lower, _PROXIES))),
        indexes=_given(environ, _INDEXES),
        remote_cache=_remote_cache(environ),
    )


def _remote_cache(environ: Mapping[str, str]) -> RemoteCache | None:
    """`[engine.cache]` of the pipeline's configuration, here or where BUILDONCE_CONFIG says."""
    import tomllib

    from buildonce.engine.remote_cache import RemoteCache

    file = Path(environ.get("BUILDONCE_CONFIG") or "ci/pipeline.toml")
    try:
        table = tomllib.loads(file.read_text()).get("engine", {}).get("cache")
    except (OSError, ValueError, AttributeError):
        return None  # a mistake in that file is told by the program that reads all of it
    if not isinstance(table, dict):
        return None
    registry, folder = table.get("registry"), table.get("folder")
    if bool(registry) == bool(folder):
        raise BuildonceError(
            f"{file}: [engine.cache] names a registry and a folder, or neither",
            remedy='set one: registry = "host/name", or folder = "path"',
        )
    return RemoteCache(
        registry=registry or None,
        folder=Path(folder).expanduser().absolute() if folder else None,
        export=bool(table.get("export", True)),
    )


def _given(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: environ[name] for name in names if environ.get(name)}


def _certificates(environ: Mapping[str, str]) -> Path | None:
    """The host's certificate authorities, if the host trusts others than everybody does."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if environ.get(name) and Path(environ[name]).is_file():
            return Path(environ[name])
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    added = Path("/usr/local/share/ca-certificates")  # what update-ca-certificates mixes in
    if system.is_file() and added.is_dir() and any(added.rglob("*.crt")):
        return system
    return None


def _registries(environ: Mapping[str, str]) -> dict[str, Registry]:
    """How this machine reaches registries: `engine.toml` of the user's configuration.

    [registries."docker.io"]
    mirrors = ["mirror.example.org"]
    [registries."registry.example.org:5000"]
    plain_http = true
    ca = ["/etc/ssl/example.pem"]
    """
    import tomllib

    from buildonce.engine.options import Registry

    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    file = Path(environ.get("BUILDONCE_ENGINE_CONFIG") or f"{base}/buildonce/engine.toml")
    file = file.expanduser()
    if not file.is_file():
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("registries", {})
        return {
            host: Registry(
                plain_http=bool(table.pop("plain_http", False)),
                mirrors=tuple(map(str, table.pop("mirrors", ()))),
                ca=tuple(Path(path).expanduser() for path in table.pop("ca", ())),
                **table,
            )
            for host, table in tables.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise BuildonceError(
            f"{file}: {error}",
            remedy='write [registries."HOST"] tables of mirrors, plain_http and ca',
        ) from None
