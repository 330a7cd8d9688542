"""The commands `buildonce run` and `buildonce session`.

The one module of the engine that knows where the machine keeps things.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from buildonce import places
from buildonce.errors import BuildonceError, ExitCode

if TYPE_CHECKING:
    from buildonce.engine.events import OnEvent
    from buildonce.engine.host import Session
    from buildonce.engine.options import EngineOptions, Registry
    from buildonce.engine.remote_cache import RemoteCache
    from buildonce.engine.run import Settings

app = typer.Typer(no_args_is_help=True)

Progress = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="auto|tty|plain|quiet",
        envvar="BUILDONCE_PROGRESS",
        help="How to show what happens: a live tree (tty), lines (plain), nothing (quiet).",
    ),
]


@app.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: buildonce run python ci/main.py --my-option",
)
def run(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program to run.")],
    progress: Progress = "auto",
) -> None:
    """Run a program with the embedded engine: a `dagger-io` program runs unchanged.

    Everything from CMD on is the program's own. Its exit status becomes this command's.
    """
    from buildonce.engine import run as running
    from buildonce.engine.child import CommandNotStarted

    if running.joins_session(os.environ):
        _replace(command)
    try:
        status = _until_done(lambda: running.run(command, _open_engine, _settings(progress)))
    except CommandNotStarted as error:
        typer.echo(f"buildonce: {error}", err=True)
        raise typer.Exit(error.status) from None
    raise typer.Exit(status)


@app.command(
    hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def session(
    label: Annotated[list[str] | None, typer.Option(help="What the client says of itself.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="Where relative paths start.")] = None,
    project: Annotated[Path | None, typer.Option(hidden=True)] = None,
    version: Annotated[str, typer.Option(hidden=True)] = "",
    load_workspace_modules: Annotated[bool, typer.Option(hidden=True)] = False,
    progress: Progress = "auto",
) -> None:
    """Serve one session until standard input is closed; `dagger-io` starts this by itself.

    Example: export _EXPERIMENTAL_DAGGER_CLI_BIN=$(command -v buildonce); python main.py
    """
    from buildonce.engine import standalone

    if load_workspace_modules:
        raise BuildonceError(
            "the embedded engine serves no Dagger modules",
            remedy="run the program on Dagger: unset _EXPERIMENTAL_DAGGER_CLI_BIN",
        )
    if workdir:
        os.chdir(workdir)
    shown = "plain" if progress == "auto" else progress
    raise typer.Exit(_until_done(lambda: standalone.session(_open_engine, _settings(shown))))


@app.command(epilog="Example: buildonce prune --keep 10g")
def prune(
    keep: Annotated[str, typer.Option(metavar="SIZE", help="Keep this much, the newest.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Delete what the engine keeps of earlier runs, cache volumes too. Running ones keep theirs."""
    import json
    from dataclasses import asdict

    from buildonce.engine import pruning

    kept = pruning.size(keep)

    async def work() -> pruning.Pruned:
        return await pruning.prune(await engine_options(os.environ), keep=kept)

    done = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        freed, left = done.freed >> 20, done.left >> 20
        typer.echo(f"deleted {done.records} results, {freed} MiB; {left} MiB are left")


def _until_done(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        return asyncio.run(work())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return ExitCode.INTERRUPTED


def _replace(command: list[str]) -> None:
    """Become `command`: there is a session already, its variables are in the environment."""
    from buildonce.engine.child import not_started

    typer.echo("buildonce: joining the session that this runs in", err=True)
    sys.stderr.flush()
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        raise not_started(command[0], error) from None


def _settings(progress: str) -> Settings:
    from buildonce.engine.progress.show import MODES
    from buildonce.engine.run import Settings

    chosen = next((mode for mode in MODES if mode == progress), None)
    if chosen is None:
        raise typer.BadParameter(f"{progress!r}: choose one of {', '.join(MODES)}")
    cache = places.cache()
    return Settings(progress=chosen, introspection=cache / "introspection", log=_log(cache))


def _log(cache: Path) -> Path:
    return cache / "logs" / "engine.log"


@asynccontextmanager
async def _open_engine(on_event: OnEvent) -> AsyncIterator[Session]:
    from buildonce.engine.session import open_session

    options = await engine_options(os.environ)
    async with open_session(options, on_event=on_event) as session:
        yield session


async def engine_options(environ: Mapping[str, str]) -> EngineOptions:
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
        log=_log(cache),
        address=address,
        buildkitd=buildkitd.path if buildkitd else None,
        runc=runc.path if runc else None,
        shim=shim.path,
        tls=Path(tls).expanduser() if tls else None,
        registries=_registries(environ),
        ca=_certificates(environ),
        proxies=_proxies(environ),
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


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    return {
        spelling: environ[spelling]
        for name in names
        for spelling in (name, name.lower())
        if environ.get(spelling)
    }


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
