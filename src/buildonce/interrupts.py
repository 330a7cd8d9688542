"""Ctrl-C while Python loads modules, or while it ends: an exit code in the place of a traceback.

leave_quietly()     # nothing has begun: the process may end at any line
...                 # imports
raise_again()       # from here on Ctrl-C is KeyboardInterrupt, and the work puts things back
...
leave_quietly()     # all has been put back
"""

from __future__ import annotations

import os
import signal


def leave_quietly() -> None:
    """Let Ctrl-C end this process at once, with 130 and no word.

    Not where the signal is ignored (`nohup`, `&` in a script) or handled by somebody else.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """Take `leave_quietly` back."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    os._exit(130)  # ExitCode.INTERRUPTED, whose module may be the one that is being loaded
