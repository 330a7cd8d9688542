"""Starting a program with a session, or a session alone: what `run` and `session` do.

    sys.exit(run(["python", "ci/main.py"], "auto"))

No parser of command lines is loaded here: the program is to start as soon as it can.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from buildonce import interrupts, places
from buildonce.engine import run as running
from buildonce.engine.child import CommandNotStarted, not_started
from buildonce.engine.machine import engine_options, log_file
from buildonce.engine.progress.show import MODES, Mode
from buildonce.errors import ExitCode

if TYPE_CHECKING:
    from buildonce.engine.events import OnEvent
    from buildonce.engine.host import Session


def plain(arguments: Sequence[str]) -> tuple[list[str], Mode] | None:
    """The program and the view of `buildonce run ARGUMENTS`, where nothing else is said.

    Returns:
        None when there is another option, no program or a mistake: a real parser is to say.
    """
    words, progress = list(arguments), os.environ.get("BUILDONCE_PROGRESS") or "auto"
    option, equals, value = words[0].partition("=") if words else ("", "", "")
    if option == "--progress":
        words.pop(0)
        progress = value if equals or not words else words.pop(0)
    if words and words[0] == "--":
        words.pop(0)
    elif words and words[0].startswith("-"):
        return None
    mode = mode_called(progress)
    return (words, mode) if words and mode else None


def mode_called(name: str) -> Mode | None:
    """The way to show what happens that has this name."""
    return next((mode for mode in MODES if mode == name), None)


def run(command: list[str], progress: Mode) -> int:
    """Run a program with a session of its own, or in the one that is there; its exit status."""
    interrupts.raise_again()
    _use_containers_conf()
    if running.joins_session(os.environ):
        _replace(command)
    try:
        return _until_done(lambda: running.run(command, open_engine, _settings(progress)))
    except CommandNotStarted as error:
        print(f"buildonce: {error}", file=sys.stderr)
        return error.status


def session(progress: Mode) -> int:
    """Serve a session until standard input is closed; the exit status."""
    interrupts.raise_again()
    from buildonce.engine import standalone

    return _until_done(lambda: standalone.session(open_engine, _settings(progress)))


@asynccontextmanager
async def open_engine(on_event: OnEvent) -> AsyncIterator[Session]:
    """The engine on this machine, or the daemon that BUILDKIT_HOST names."""
    from buildonce.engine.session import open_session

    options = await engine_options(os.environ)
    async with open_session(options, on_event=on_event) as opened:
        yield opened


def _settings(progress: Mode) -> running.Settings:
    cache = places.cache()
    introspection, log = cache / "introspection", log_file(cache)
    return running.Settings(progress=progress, introspection=introspection, log=log)


def _until_done(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        return asyncio.run(work())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return ExitCode.INTERRUPTED


def _replace(command: list[str]) -> None:
    """Become `command`: there is a session already, its variables are in the environment."""
    print("buildonce: joining the session that this runs in", file=sys.stderr, flush=True)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        raise not_started(command[0], error) from None


def _use_containers_conf() -> None:
    """Let a podman below us work where it needs a configuration: set-up has written it."""
    file = places.cache() / "containers.conf"
    if "CONTAINERS_CONF" not in os.environ and file.is_file():
        os.environ["CONTAINERS_CONF"] = str(file)
