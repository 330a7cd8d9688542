"""How a command ends: whatever happened in it has become a message on stderr and an exit code.

    sys.exit(exit_code(lambda: work()))

A `BuildonceError` is its message, remedy and code. What the machine refuses (a full disk, a folder
that may not be written) is told as what it is. Anything else is a mistake of ours: one line that
names a log file with the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from buildonce.errors import BuildonceError, ExitCode, leaves, refusal
from buildonce.visible import visible

# As if SIGPIPE had ended us, which is what it does to programs that are not in Python.
READER_GONE = 141


def exit_code(work: Callable[[], object]) -> int:
    """Do `work` and tell how it ended.

    Args:
        work: an int that it returns is the exit code; anything else is 0.
    """
    try:
        result = work()
        if sys.stdout is not None:
            sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.PASSED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            return _nobody_reads()
        raise
    except BrokenPipeError:
        return _nobody_reads()
    except BaseException as error:
        return _explain(error)


def _nobody_reads() -> int:
    # `| head` has seen enough: nothing to say, and nobody to say it to. What is left in the buffer
    # must not be tried again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return READER_GONE


def _explain(error: BaseException) -> int:
    causes = leaves(error)
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return ExitCode.INTERRUPTED
    expected = [cause for cause in causes if isinstance(cause, BuildonceError)]
    if expected and len(expected) == len(causes):
        for cause in expected:
            complain(cause.message, cause.remedy)
        return expected[0].exit_code
    unexpected = next(cause for cause in causes if not isinstance(cause, BuildonceError))
    if isinstance(unexpected, FileNotFoundError) and _folder_is_gone():
        complain("the folder that this was called in has been deleted", "cd to one that is there")
        return ExitCode.USAGE
    if (refused := refusal(unexpected)) is not None:
        complain(refused.message, refused.remedy)
        _nobody_reads()  # it may be the output itself: `> /dev/full`
        return refused.exit_code
    log = _write_log(error)
    complain(
        f"buildonce itself failed: {type(unexpected).__name__}: {unexpected}",
        f"read {log}; please report it with that file" if log else "please report it",
    )
    return ExitCode.TOOL_FAILED


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def complain(message: str, remedy: str | None = None) -> None:
    """Say on stderr what failed, and what to do about it."""
    red, plain = ("\033[31m", "\033[0m") if _coloured() else ("", "")
    lines = [f"{red}error:{plain} {visible(message)}"]
    if remedy:
        lines.append(f"  try: {visible(remedy)}")
    with suppress(OSError):  # nobody may be there to be told
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def _coloured() -> bool:
    if sys.stderr is None or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty()


def _write_log(error: BaseException) -> Path | None:
    import tempfile
    import traceback
    from datetime import UTC, datetime

    from buildonce import places

    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"failure-{when}-{os.getpid()}.log"
    lines = [f"arguments: {sys.argv[1:]}\n", *traceback.format_exception(error)]
    for temporary in (False, True):
        try:
            own = Path(tempfile.mkdtemp(prefix="buildonce-")) if temporary else places.cache()
            log = own / "logs" / name
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(lines), "utf-8")
        except (BuildonceError, OSError):
            continue
        return log
    return None
