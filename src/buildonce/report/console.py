"""What a run says on the terminal: a line when something ends, and a summary as its last screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from buildonce.errors import ExitCode
from buildonce.report.record import CheckRecord, Result, RolloutRecord, RunRecord, StageRecord
from buildonce.visible import on_one_line, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHOWN_FAILURES = 20
_SHOWN_SUMMARY = 88

# Dagger's convention: whoever collects traces wants spans when they begin.
_LIVE_SPANS = "OTEL_EXPORTER_OTLP_TRACES_LIVE"

_COLOURS = {
    Result.PASSED: "green",
    Result.FAILED: "red",
    Result.BROKEN: "magenta",
    Result.CANCELLED: "yellow",
    Result.TIMED_OUT: "red",
}

_MEANING = {
    ExitCode.PASSED: "passed",
    ExitCode.CHECK_FAILED: "a check failed",
    ExitCode.USAGE: "it was called wrongly",
    ExitCode.ROLLED_BACK: "a deployment failed and was rolled back",
    ExitCode.POLICY_DENIED: "a policy denied it",
    ExitCode.INCONCLUSIVE: "inconclusive",
    ExitCode.TOOL_FAILED: "the pipeline itself failed, the checks say nothing",
    ExitCode.INTERRUPTED: "interrupted",
}


class Progress:
    """One line for each thing that begins or ends.

    Args:
        stream: where to; standard error, so that standard output has the summary alone.
        spans_shown: whoever runs this program shows its spans as they come, as `buildonce run` and
            `dagger run` do; what is a span is then not said twice. None: as the environment says.
    """

    def __init__(self, stream: TextIO | None = None, *, spans_shown: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._spans_shown = _LIVE_SPANS in os.environ if spans_shown is None else spans_shown

    def say(self, text: str) -> None:
        """A line of its own."""
        print(visible(text), file=self._stream, flush=True)

    def stage(self, stage: StageRecord) -> None:
        """A stage began."""
        if not self._spans_shown:
            self.say(f"{stage.name}")

    def check(self, check: CheckRecord) -> None:
        """A check ended."""
        if self._spans_shown:
            return
        result = check.result or "?"
        cached = " (cached)" if check.cached else ""
        self.say(f"  {check.name} {result} in {duration(check.seconds)}{cached}: {check.summary}")


def summarize(record: RunRecord, stream: TextIO | None = None) -> None:
    """Write the last screen: stages and checks, release, URLs, files, what failed, the verdict."""
    # Here and not above: a run that imports them at its start pays for it before its first line.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    # A log has no width, and one that is cut at column 80 hides what failed.
    width = None if stream.isatty() else 200
    console = Console(file=stream, highlight=False, soft_wrap=True, width=width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("stage", "check", "result", "time", "", ""):
        table.add_column(title, justify="right" if title == "time" else "left", no_wrap=True)
    table.columns[-1].no_wrap = False  # the one to give way on a narrow terminal
    for stage in record.stages:
        table.add_row(
            Text(stage.name, "bold"), "", _ended(stage.result), duration(stage.seconds),
            "cached" if stage.cached else "", _stage_remark(stage),
        )  # fmt: skip
        for check in stage.checks:
            table.add_row(
                "", Text(visible(check.name)), _ended(check.result), duration(check.seconds),
                "cached" if check.cached else "", Text(_cut(check.summary)),
            )  # fmt: skip
    console.print()
    if record.stages:
        console.print(table)
        console.print()
    for name, value in _facts(record):
        console.print(Text(f"{name:<12}", "bold"), Text(on_one_line(value)), sep="", end="\n")
    for note in [*_remarks(record), *record.notes]:
        console.print(Text(on_one_line(f"note: {note}"), "yellow"))
    _print_failures(record, console)
    code = record.exit_code or ExitCode.PASSED
    colour = "green" if code == ExitCode.PASSED else "red"
    verdict = f"{_MEANING[code]} (exit code {int(code)}) in {duration(record.seconds)}"
    console.print(Text(verdict, f"bold {colour}"))


def duration(seconds: float) -> str:
    """ "0.3 s", "2 min 5 s", "1 h 2 min"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _stage_remark(stage: StageRecord) -> str:
    awaited = f"{duration(stage.awaited)} of it for people" if stage.awaited >= 0.1 else ""
    return "; ".join(filter(None, (stage.late, awaited)))


def _cut(text: str) -> str:
    first = visible(text.partition("\n")[0])
    return first if len(first) <= _SHOWN_SUMMARY else f"{first[: _SHOWN_SUMMARY - 1]}…"


def _ended(result: Result | None) -> Text:
    from rich.text import Text

    return Text(result or "running", _COLOURS[result] if result else "")


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    profile = f", profile {record.profile}" if record.profile else ""
    yield "run", f"{record.run} of {record.pipeline}{profile}"
    if record.release:
        state = "" if record.release_changed else " (as before)"
        yield "release", f"{record.release.version}, revision {record.release.revision}{state}"
        yield "image", record.release.image.reference
    elif record.revision:
        yield "source", f"{record.version}, revision {record.revision}"
    for rollout in record.rollouts:
        state = "deployed" if rollout.changed else "runs there already"
        yield rollout.environment, f"{rollout.url}  {state}: {rollout.digest[:19]}"
        if rollout.shares:
            yield "", f"answers by the new release: {_split(rollout)}"
    if record.files:
        yield "files", "  ".join(record.files)


def _split(rollout: RolloutRecord) -> str:
    """ "10.0 % of 402 at 10 %, 50.1 % of 399 at 50 %; none failed"."""
    steps = []
    for share in rollout.shares:
        seen = "nobody asked"
        if share.measured is not None:
            seen = f"{share.measured:.1f} % of {share.new + share.old}"
        steps.append(f"{seen} at {share.percent} %")
    failed = sum(share.failed for share in rollout.shares)
    return f"{', '.join(steps)}; {failed or 'none'} failed"


def _remarks(record: RunRecord) -> Iterator[str]:
    """What checks remark, and each finding that was waived: it is accepted, not forgotten."""
    for check in (check for stage in record.stages for check in stage.checks):
        remarks = [*(str(waived) for waived in check.waived), *check.notes]
        yield from (f"{check.name}: {remark}" for remark in remarks[:_SHOWN_FAILURES])
        if (more := len(remarks) - _SHOWN_FAILURES) > 0:
            yield f"{check.name}: and {more} more: see out/summary.json"


def _print_failures(record: RunRecord, console: Console) -> None:
    """What went wrong, last of all: it is what somebody looks for."""
    from rich.text import Text

    # A container that several checks share and that cannot be made fails them all alike.
    alike: dict[tuple[object, ...], list[CheckRecord]] = {}
    for stage in record.stages:
        for check in stage.failing:
            told = (check.result, check.summary, check.failures, check.details, check.remedy)
            alike.setdefault(told, []).append(check)
    for checks in alike.values():
        names = ", ".join(check.name for check in checks)
        ended = f"\n{names} {checks[0].result}: {checks[0].summary}"
        console.print(Text(visible(ended), "bold red"))
        for failure in checks[0].failures[:_SHOWN_FAILURES]:
            console.print(Text(f"  {on_one_line(str(failure))}"))
        if (more := len(checks[0].failures) - _SHOWN_FAILURES) > 0:
            console.print(Text(f"  and {more} more: see out/summary.json"))
        for line in checks[0].details:
            console.print(Text(f"  {visible(line)}"))
        if checks[0].remedy:
            console.print(Text(f"  try: {visible(checks[0].remedy)}"))
    if record.problem:
        console.print(Text(visible(f"\n{record.problem.message}"), "bold red"))
        if record.problem.remedy:
            console.print(Text(f"  try: {visible(record.problem.remedy)}"))
