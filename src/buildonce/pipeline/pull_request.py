"""Whether a run is for a pull request, which is checked as a commit is, and goes nowhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from buildonce.errors import BuildonceError, ExitCode

OPTION = "--pull-request"
VARIABLE = "BUILDONCE_PULL_REQUEST"


class WrongArguments(BuildonceError):
    """The pipeline was called with something that it does not know."""

    exit_code = ExitCode.USAGE


def asked_for_pull_request(arguments: Sequence[str]) -> bool:
    """Whether the command line (without the program's name) or the environment asks for it.

    Raises:
        WrongArguments: the command line has anything else, or the variable means nothing.
    """
    if unknown := [argument for argument in arguments if argument != OPTION]:
        raise WrongArguments(
            f"a pipeline has no option {unknown[0]!r}", remedy=f"leave it out, or say {OPTION}"
        )
    value = os.environ.get(VARIABLE, "").lower()
    if value not in ("", "0", "1", "false", "true"):
        raise WrongArguments(
            f"{VARIABLE}={value} means nothing", remedy=f"set {VARIABLE} to 1 or 0, or unset it"
        )
    return OPTION in arguments or value in ("1", "true")
