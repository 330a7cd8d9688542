"""`python -m tests.aws`: three AWS accounts on this machine, for the profile aws-simulated.

$ BUILDONCE_PROFILE=aws-simulated python -m tests.aws
export AWS_ACCESS_KEY_ID=…             # to be typed, or `eval`uated, where buildonce is called

$ BUILDONCE_PROFILE=aws-simulated python -m tests.aws -- buildonce env plan production
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import anyio

from buildonce.config import PROFILE_VARIABLE, Config
from buildonce.errors import BuildonceError

from .server import SPEED, serving

_PROFILE = "aws-simulated"


def main() -> int:
    """Serve until SIGINT or SIGTERM, or until the command that was given has ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.aws", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("ci/pipeline.toml"))
    parser.add_argument("--speed", type=float, default=SPEED, help="how fast its clock goes")
    parser.add_argument("--furnished", action="store_true", help="with all stacks made")
    parser.add_argument("--trail", type=Path, help="file that gets a line for each call")
    parser.add_argument("command", nargs="*", help="to be run with the environment; then it ends")
    options = parser.parse_args()
    try:
        config = Config.load(options.config, profile=os.environ.get(PROFILE_VARIABLE) or _PROFILE)
        return anyio.run(_run, config, options)
    except BuildonceError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)


async def _run(config: Config, options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="aws-") as folder:
        async with serving(
            config,
            Path(folder),
            speed=options.speed,
            furnished=options.furnished,
            trail=options.trail,
        ) as server:
            variables = {PROFILE_VARIABLE: config.profile or _PROFILE, **server.variables}
            if options.command:
                done = await anyio.run_process(
                    options.command,
                    env={**os.environ, **variables},
                    stdin=None,
                    stdout=None,
                    stderr=None,
                    check=False,
                )
                return done.returncode
            for name, value in variables.items():
                print(f"export {name}={value}")
            sys.stdout.flush()
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    break
    return 0


if __name__ == "__main__":
    sys.exit(main())
