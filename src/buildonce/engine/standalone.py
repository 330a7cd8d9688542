"""`buildonce session`: what `dagger-io` starts when it finds no session to join.

    export _EXPERIMENTAL_DAGGER_CLI_BIN=$(command -v buildonce)
    python main.py            # dagger.connection() starts `buildonce session …` by itself

The contract: one line on standard output, `{"port": …, "session_token": …}`, then serve until
standard input is closed. Standard error gets the progress; clients may or may not read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time

from buildonce.engine.host import Host, OpenEngine, logging_to
from buildonce.engine.progress.model import Model, summary
from buildonce.engine.progress.show import open_display
from buildonce.engine.run import Settings


async def session(open_engine: OpenEngine, settings: Settings) -> int:
    """Serve until standard input ends or a signal comes.

    Raises:
        BuildonceError: the engine cannot be started.
    """
    started = time.time()
    model = Model()
    # Older clients open a pipe for our standard error and never read it.
    display = open_display(settings.progress, model, patient=False, environ=settings.environ)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end.set)
    with logging_to(settings.log):
        host = Host(
            open_engine,
            display.telling(model),
            introspection=settings.introspection,
            log=settings.log,
        )
        with contextlib.closing(host):
            watching = asyncio.create_task(_until_closed(end))
            try:
                async with display.showing(), host.serving():
                    if not await _ready(host, end):
                        return 0
                    line = json.dumps({"port": host.port, "session_token": host.token})
                    await asyncio.to_thread(_say, line)
                    await end.wait()
            finally:
                watching.cancel()
    display.finish(summary(model, time.time() - started))
    return 0


async def _ready(host: Host, end: asyncio.Event) -> bool:
    """Wait for the engine; False when nobody wants it any more."""
    ready = asyncio.ensure_future(host.ready())
    ending = asyncio.create_task(end.wait())
    try:
        await asyncio.wait({ready, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            return False
        ready.result()
        return True
    finally:
        ready.cancel()
        ending.cancel()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _until_closed(end: asyncio.Event) -> None:
    """Read standard input to its end, then set `end`."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(0, readable.set)
    except (OSError, ValueError):
        return  # a file: it has no end to wait for; a signal ends us
    try:
        while True:
            readable.clear()
            await readable.wait()
            if not os.read(0, 4096):
                end.set()
                return
    finally:
        loop.remove_reader(0)
