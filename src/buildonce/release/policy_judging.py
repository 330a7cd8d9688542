"""Judging one piece of evidence: there, fresh, understandable and good; else a line says why.

line = LineOf("sbom image", "a CycloneDX document")
line("missing", "there is none", "run the pipeline again")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from buildonce.release.evidence import Attestation
from buildonce.release.policy import Case, Line, State
from buildonce.release.policy_predicates import Unreadable

SKEW: Final = timedelta(minutes=5)
"""Clocks differ; a time further ahead than this is no difference of clocks."""

AGAIN: Final = "run the pipeline on this commit again: `make pipeline`"

_SHOWN = 5  # of a list: what is longer is counted


class LineOf:
    """Makes the lines of one demand."""

    def __init__(self, what: str, wanted: str) -> None:
        self.what = what
        self.wanted = wanted

    def __call__(self, state: State, found: str, remedy: str | None = None) -> Line:
        return Line(self.what, state, found, self.wanted, remedy)


def judged(
    case: Case,
    what: str,
    wanted: str,
    predicate_type: str,
    name: str | tuple[str, ...] | None,
    judge: Callable[[Attestation, LineOf], Iterator[Line]],
) -> Iterator[Line]:
    """The lines of one piece of evidence: it is there, fresh, understandable, and good.

    Of several with one name the newest counts, by the time that is signed with it; where several
    are equally new, or do not say how new they are, each must be good.
    """
    line = LineOf(what, wanted)
    names = (name,) if isinstance(name, str) else name
    found = [
        item
        for item in case.dossier.verified.of_type(predicate_type)
        if names is None or item.name in names
    ]
    if not found:
        there = sorted(
            {
                item.name or "one without a name"
                for item in case.dossier.verified.of_type(predicate_type)
            }
        )
        refused = refused_of(case, predicate_type)
        if there:
            others = f"there is none (there are: {listed(there)})"
            yield line(
                "missing", f"{others}; not believed: {refused}" if refused else others, AGAIN
            )
        else:
            yield line("failed" if refused else "missing", refused or "there is none", AGAIN)
        return
    for item in _newest(found):
        if (stale := _age(case, item)) is not None:
            yield line(*stale)
            continue
        try:
            answers = list(judge(item, line))
        except Unreadable as error:
            answers = [line("error", f"it cannot be understood: {error}", AGAIN)]
        yield from answers or [line("error", "nothing is known of it", AGAIN)]


def _newest(found: list[Attestation]) -> list[Attestation]:
    by_name: dict[str, list[Attestation]] = {}
    for item in found:
        by_name.setdefault(item.name, []).append(item)
    newest: list[Attestation] = []
    for items in by_name.values():
        times = [item.created for item in items if item.created is not None]
        last = max(times, default=None)
        newest += [item for item in items if item.created in (None, last)]
    return newest


def _age(case: Case, item: Attestation) -> tuple[State, str, str] | None:
    """What is wrong with the age of a piece of evidence; None when nothing is."""
    limit = case.policy.max_age
    if item.created is not None and item.created > case.now + SKEW:
        return "error", f"it is of {day(item.created)}, in the future", "set the clocks right"
    if limit is None:
        return None
    if item.created is None:
        return "error", "it does not say when it was made", AGAIN
    age = case.now - item.created
    if age <= limit:
        return None
    return "failed", f"it expired: {span_of(age)} old, at most {span_of(limit)} is allowed", AGAIN


def refused_of(case: Case, predicate_type: str) -> str:
    """What lies there of this type, or of a type that cannot be read, and is not believed."""
    return listed(
        [
            item.message
            for item in case.dossier.verified.refused
            if item.what == "attestation" and item.type in (predicate_type, "")
        ]
    )


def listed(items: list[str]) -> str:
    shown = "; ".join(items[:_SHOWN])
    return f"{shown}; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else shown


def day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span_of(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            smaller = {"d": (3600, " h"), "h": (60, " min"), "min": (1, " s")}[unit]
            more = f" {rest // smaller[0]}{smaller[1]}" if rest >= smaller[0] else ""
            return f"{whole} {unit}{more}"
    return f"{seconds} s"
