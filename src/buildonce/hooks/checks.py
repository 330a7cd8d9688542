"""What each hook does: run its program on what is about to be committed, and say what is wrong.

code = await HOOKS["secrets"]((), Path("."))      # 0: nothing found, 1: something found
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio

from buildonce.errors import BuildonceError
from buildonce.hooks.rules import gitleaks_rules, semgrep_rules
from buildonce.toolchain import ensure
from buildonce.toolchain.python_tools import ensure_python_tool
from buildonce.visible import visible

PASSED, FOUND = 0, 1

# What `pre-commit` says when it looks at commits and not at the index (a push, a run in CI).
_FROM, _TO = "PRE_COMMIT_FROM_REF", "PRE_COMMIT_TO_REF"

# Nothing leaves the machine, and the user's own settings do not count.
_SEMGREP_ENVIRONMENT = {
    "SEMGREP_SEND_METRICS": "off",
    "SEMGREP_ENABLE_VERSION_CHECK": "0",
}

Hook = Callable[[Sequence[str], Path], Awaitable[int]]


async def secrets(_files: Sequence[str], root: Path) -> int:
    """Staged changes; the commits of a push; or, where nothing is staged, the whole history."""
    gitleaks = await ensure("gitleaks", progress=_say)
    if os.environ.get(_FROM) and os.environ.get(_TO):
        what = [f"--log-opts={os.environ[_FROM]}..{os.environ[_TO]}"]
    elif await _anything_staged(root):
        what = ["--staged", "--pre-commit"]
    else:
        _say("nothing is staged: looking at the whole history")
        what = []
    return await _gate(
        [
            *(str(gitleaks.path), "git", *what, "--config", str(gitleaks_rules())),
            # In-file comments do not silence the gate; the secret itself is never shown.
            *("--ignore-gitleaks-allow", "--redact", "--verbose", "--no-banner", "--no-color"),
            str(root),
        ],
        root,
        found=(1,),
    )


async def lint(files: Sequence[str], root: Path) -> int:
    """Format and lint of Python files, by the repository's own configuration of ruff."""
    if not files:
        return PASSED
    ruff = str(await ensure_python_tool("ruff", progress=_say) / "ruff")
    codes = [
        await _gate([ruff, *what, "--force-exclude", "--", *files], root, found=(1,))
        for what in (["format", "--check"], ["check", "--no-fix"])
    ]
    return max(codes)


async def sast(files: Sequence[str], root: Path) -> int:
    """Flaws in the code, by the rules of the pipeline's check of the same name."""
    if not files:
        return PASSED
    semgrep = await ensure_python_tool("semgrep", progress=_say)
    with tempfile.TemporaryDirectory(prefix="buildonce-") as folder:
        return await _gate(
            [
                *(str(semgrep / "semgrep"), "scan", "--metrics=off", "--disable-version-check"),
                *("--error", "--severity=ERROR", "--no-git-ignore", "--quiet", "--disable-nosem"),
                *(f"--config={rules}" for rules in semgrep_rules()),
                *("--", *files),
            ],
            root,
            found=(1,),
            env={
                **_SEMGREP_ENVIRONMENT,
                # It renames a new file over this one: never name a device here.
                "SEMGREP_SETTINGS_FILE": f"{folder}/settings.yml",
                # It looks for its helper programs on the PATH.
                "PATH": f"{semgrep}{os.pathsep}{os.environ.get('PATH', '')}",
            },
        )


async def infrastructure(files: Sequence[str], root: Path) -> int:
    """CloudFormation templates among the files; what is none is passed over."""
    templates = [
        file for file in files if await anyio.to_thread.run_sync(_is_template, root / file)
    ]
    if not templates:
        return PASSED
    cfn_lint = await ensure_python_tool("infrastructure", progress=_say) / "cfn-lint"
    # Its exit code is a sum: 2 errors, 4 warnings, 8 remarks.
    return await _gate(
        [str(cfn_lint), "--non-zero-exit-code=warning", "--", *templates],
        root,
        found=(2, 4, 6, 8, 10, 12, 14),
    )


HOOKS: Mapping[str, Hook] = {
    "secrets": secrets,
    "lint": lint,
    "sast": sast,
    "infrastructure": infrastructure,
}


async def _gate(
    command: Sequence[str],
    root: Path,
    *,
    found: Sequence[int],
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a check and pass on what it says; a program that fails itself is an error, not a pass."""
    done = await anyio.run_process(
        list(command),
        cwd=root,
        env={**os.environ, **(env or {})},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        check=False,
    )
    said = visible((done.stdout + done.stderr).decode(errors="replace").strip())
    if done.returncode == 0:
        return PASSED
    if done.returncode in found:
        print(said)
        return FOUND
    program = Path(command[0]).name
    raise BuildonceError(
        f"{program} could not do its work: exit code {done.returncode}\n{said[-2000:]}",
        remedy=f"see what {program} says above",
    )


async def _anything_staged(root: Path) -> bool:
    done = await anyio.run_process(
        ["git", "diff", "--cached", "--quiet"], cwd=root, check=False, stdin=DEVNULL
    )
    if done.returncode not in (0, 1):
        raise BuildonceError(
            f"git cannot say what is staged in {root}", remedy="run this in a Git checkout"
        )
    return done.returncode == 1


def _is_template(file: Path) -> bool:
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return False
    return "AWSTemplateFormatVersion" in text or ("Resources" in text and "AWS::" in text)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
