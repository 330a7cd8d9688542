"""Serve the dashboard until SIGTERM, finishing what was begun."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _stop_before_serving(number: int, frame: FrameType | None) -> None:
    # Not an exception: where Python loads a module it may end in a callback, which ignores it.
    os._exit(0)


def main() -> None:
    """Listen on 0.0.0.0:$PORT; a container has no other way to be reached."""
    # The first process of a container ignores SIGTERM until it handles it; uvicorn does so only
    # once everything is imported, and puts this handler back, and calls it, when it has stopped.
    signal.signal(signal.SIGTERM, _stop_before_serving)
    signal.signal(signal.SIGINT, _stop_before_serving)

    import uvicorn

    from buildonce.dashboard.app import create_app
    from buildonce.dashboard.settings import Settings
    from buildonce.errors import BuildonceError

    try:
        settings = Settings.from_environment()
    except BuildonceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    uvicorn.run(
        create_app(settings),
        host="0.0.0.0",  # noqa: S104
        port=settings.port,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main()
