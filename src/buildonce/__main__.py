"""The program `buildonce`, which is also `python -m buildonce`.

It loads what the command line needs and no more: its start is a part of every run.
"""

from __future__ import annotations

import gc
import sys

from buildonce import interrupts


def main() -> None:
    """Run the command line of this process and exit with its code."""
    interrupts.leave_quietly()
    gc.set_threshold(50_000)  # loading makes many objects and no garbage: a sixth of the start
    try:
        code = _run(sys.argv[1:])
        interrupts.leave_quietly()
        gc.freeze()  # a process that ends need not search its memory for garbage: 0.2 s
    except KeyboardInterrupt:  # between two lines of what ends all others
        code = 130
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["run"]:
        # Most starts of a pipeline: they need no parser of command lines, which takes longer to
        # load than all that they do need.
        from buildonce.engine import launching

        if (plain := launching.plain(arguments[1:])) is not None:
            from buildonce import ending

            return ending.exit_code(lambda: launching.run(*plain))
    from buildonce import cli

    return cli.run(arguments)


if __name__ == "__main__":
    main()
