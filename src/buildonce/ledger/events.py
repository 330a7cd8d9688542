"""The events a ledger holds: their kinds, and the data that each kind must carry.

Each kind has one TypedDict below; it is both what mypy sees and what `checked` enforces when an
event is appended. Keys beyond those named are kept (a newer writer may know more), but everything
must be JSON. Times are ISO 8601 with an offset, durations are seconds.

    data = checked("stage.started", {"stage": "commit"})
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from buildonce.ledger.errors import EventRefused

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_DATA_BYTES = 256 * 1024
"""An event is a fact, not a log: larger data is refused."""


@dataclass(frozen=True)
class Event:
    """One appended fact. `id` grows with every append; `at` is UTC."""

    id: int
    at: datetime
    run: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What a value must look like beyond its type, and how to say so."""

    holds: Callable[[Any], object]
    what: str


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Id: TypeAlias = Annotated[
    str, Form(_ID.fullmatch, "letters, digits and . _ + : - (at most 128, no slash)")
]
Digest: TypeAlias = Annotated[str, Form(_DIGEST.fullmatch, "sha256:<64 hex digits>")]
Name: TypeAlias = Annotated[str, Form(lambda v: 0 < len(v) <= 256, "1 to 256 characters")]
Time: TypeAlias = Annotated[str, Form(_is_time, "an ISO 8601 time with an offset")]
Count: TypeAlias = Annotated[int, Form(lambda v: v > 0, "a number from 1 on")]
Seconds: TypeAlias = Annotated[
    float, Form(lambda v: math.isfinite(v) and v >= 0, "a finite number of seconds, not negative")
]

RunResult: TypeAlias = Literal[
    "passed", "check-failed", "rolled-back", "tool-failed", "interrupted"
]
StageOutcome: TypeAlias = Literal["passed", "failed", "cancelled", "timed-out"]
RolloutResult: TypeAlias = Literal["succeeded", "rolled-back", "failed"]
Reason: TypeAlias = Literal["deploy", "rollback"]


class RunStarted(TypedDict):
    pipeline: Name
    revision: str
    version: Id
    actor: str


class StageStarted(TypedDict):
    stage: Name


class StageFinished(TypedDict):
    stage: Name
    result: StageOutcome
    seconds: Seconds
    cached: bool
    summary: str


class CheckFinished(TypedDict):
    stage: Name
    check: Name
    result: StageOutcome
    seconds: Seconds
    cached: bool
    summary: str


class ReleaseCreated(TypedDict):
    version: Id
    revision: str
    digest: Digest
    repository: Name
    configuration: str
    committed_at: Time
    created: NotRequired[Time]  # when it was cut; what was recorded long ago does not have it


class PromotionStarted(TypedDict):
    promotion: Id
    version: Id
    revision: str
    digest: Digest
    waves: list[Any]  # names of environments, wave by wave
    reason: Reason
    bake: NotRequired[Seconds]  # between two waves
    concurrency: NotRequired[Count]  # so many environments are changed at the same time
    tests: NotRequired[bool]  # whether a pipeline tests each wave


class PromotionStep(TypedDict):
    promotion: Id
    step: Name
    data: dict[str, Any]


class PromotionFinished(TypedDict):
    promotion: Id
    result: RolloutResult
    seconds: Seconds
    cause: NotRequired[str | None]


class RolloutStarted(TypedDict):
    rollout: Id
    environment: Id
    version: Id
    revision: str
    digest: Digest
    previous_digest: Digest | None
    reason: Reason
    promotion: NotRequired[Id | None]  # it is part of
    wave: NotRequired[int | None]  # of the promotion, from 1
    plan: NotRequired[dict[str, Any]]


class RolloutStep(TypedDict):
    rollout: Id
    environment: Id
    step: Name
    data: dict[str, Any]


class RolloutFinished(TypedDict):
    rollout: Id
    environment: Id
    result: RolloutResult
    digest: Digest | None  # what runs there now; None when nothing does
    seconds: Seconds
    cause: NotRequired[str | None]


class Approval(TypedDict):
    environment: Id
    actor: str
    version: NotRequired[Id | None]
    digest: NotRequired[Digest | None]
    rollout: NotRequired[Id | None]
    reason: NotRequired[str | None]


class PolicyDecided(TypedDict):
    environment: Id
    version: Id
    digest: Digest
    policy: Name
    allowed: bool
    reason: Reason
    lines: list[Any]  # those that deny it: {what, state, found, wanted}


class ReleaseStatus(TypedDict):
    version: Id
    digest: Digest
    status: Digest  # of the signed statement in the registry
    state: Literal["withdrawn", "reinstated", "good"]
    environments: list[Any] | None  # None: everywhere
    actor: str
    reason: str
    advisories: NotRequired[list[Any]]


class RunFinished(TypedDict):
    result: RunResult
    seconds: Seconds


KINDS: dict[str, type] = {
    "run.started": RunStarted,
    "stage.started": StageStarted,
    "stage.finished": StageFinished,
    "check.finished": CheckFinished,
    "release.created": ReleaseCreated,
    "promotion.started": PromotionStarted,
    "promotion.step": PromotionStep,
    "promotion.finished": PromotionFinished,
    "rollout.started": RolloutStarted,
    "rollout.step": RolloutStep,
    "rollout.finished": RolloutFinished,
    "approval.given": Approval,
    "approval.refused": Approval,
    "policy.decided": PolicyDecided,
    "release.status": ReleaseStatus,
    "run.finished": RunFinished,
}
"""Every kind that can be appended, with the form of its data."""

_FIELDS = {kind: get_type_hints(form, include_extras=True) for kind, form in KINDS.items()}


def new_run_id(at: datetime | None = None) -> str:
    """A fresh run id, sortable by time: `YYYYMMDDTHHMMSSZ-<6 hex>`."""
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def is_id(text: str) -> bool:
    """Whether `text` has the form of a run, rollout, version or environment id."""
    return _ID.fullmatch(text) is not None


def checked(kind: str, data: Mapping[str, object]) -> dict[str, Any]:
    """The event's data as plain JSON values, once it has the form of its kind.

    Raises:
        EventRefused: unknown kind, a key missing or of another form, not JSON, or too large.
    """
    if kind not in _FIELDS:
        raise EventRefused(
            f"the ledger knows no event kind {kind!r}",
            remedy=f"use one of: {', '.join(KINDS)}",
        )
    plain = _plain(data, kind)
    for key, hint in _FIELDS[kind].items():
        optional = get_origin(hint) is NotRequired
        if key not in plain:
            if optional:
                continue
            raise EventRefused(f"event {kind}: {key!r} is missing")
        problem = _problem(get_args(hint)[0] if optional else hint, plain[key])
        if problem:
            raise EventRefused(f"event {kind}: {key!r} is {plain[key]!r:.80}, not {problem}")
    size = len(json.dumps(plain))
    if size > MAX_DATA_BYTES:
        raise EventRefused(
            f"event {kind}: its data has {size} bytes, more than {MAX_DATA_BYTES}",
            remedy="keep a summary in the ledger and the rest in a file under out/",
        )
    result: dict[str, Any] = plain
    return result


def checked_run(run: str) -> str:
    """The run id itself; EventRefused when it has not the form of an id."""
    if not isinstance(run, str) or not is_id(run):
        raise EventRefused(f"{run!r:.80} is no run id", remedy="make one with ledger.new_run_id()")
    return run


def _plain(value: object, where: str) -> Any:
    match value:
        case str():
            # A file name may hold bytes that are no text; they must not break a reader.
            return value.encode("utf-8", "replace").decode("utf-8")
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise EventRefused(f"event {where}: every key must be text")
            return {
                _plain(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, where) for item in value]
    raise EventRefused(f"event {where}: {value!r:.80} ({type(value).__name__}) is not JSON")


def _problem(hint: Any, value: Any) -> str | None:
    """What `value` should have been, or None when it satisfies the type hint."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, form = get_args(hint)
        return _problem(base, value) or (None if form.holds(value) else form.what)
    if origin in (Union, UnionType):
        problems = [_problem(choice, value) for choice in get_args(hint)]
        return None if None in problems else " or ".join(p for p in problems if p)
    if origin is Literal:
        choices = get_args(hint)
        return None if value in choices else f"one of {', '.join(choices)}"
    if origin is dict:
        return None if isinstance(value, dict) else "a table"
    if origin is list:
        return None if isinstance(value, list) else "a list"
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return None if fits else "a number"
    if hint is NoneType:
        return None if value is None else "null"
    return None if isinstance(value, hint) else f"a {hint.__name__}"
