"""Checks side by side, and the gate behind them.

    async with pipeline.parallel() as checks:
        checks.start(unit_tests, source, tools)
        image = checks.start(build_image, source)
        checks.start(sbom_image, image, syft)      # begins when the image is built
    # Here all have passed, or CheckFailed was raised with every one that had not.
    container = await image

All run to their ends, so that one run tells everything there is to mend. Started by `fail_fast`, a
failure ends the others at once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from opentelemetry import trace

from buildonce.config import Config
from buildonce.errors import ExitCode
from buildonce.pipeline.errors import explain, gate_error
from buildonce.pipeline.journal import Journal
from buildonce.pipeline.options import options_for
from buildonce.report import CheckRecord, Result, StageRecord
from buildonce.stages import Check

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_tracer = trace.get_tracer("buildonce")

_CONCLUSION = {
    Result.PASSED: "success",
    Result.FAILED: "failure",
    Result.BROKEN: "error",
    Result.CANCELLED: "cancellation",
    Result.TIMED_OUT: "timeout",
}


class _File(Protocol):
    async def export(self, path: str, /) -> object: ...


class Running(Generic[T]):
    """What was started: awaiting it gives what the function returned, or raises what it raised."""

    def __init__(self, record: CheckRecord) -> None:
        self.record = record
        self._ended = anyio.Event()
        self._value: T
        self._error: BaseException | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        await self._ended.wait()
        if self._error is not None:
            raise _AlreadyTold from self._error
        return self._value

    async def ended(self) -> None:
        """Wait until it has ended, well or not; its `record` says how."""
        await self._ended.wait()

    def _end(self, value: T) -> None:
        self._value = value
        self._ended.set()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._ended.set()


class _AlreadyTold(Exception):
    """A task awaited a check that broke; the gate behind the group tells which."""


def _awaited(values: Iterable[object]) -> Iterator[Running[Any]]:
    """Every `Running` among the values, also within lists, tuples and mappings."""
    for value in values:
        match value:
            case Running():
                yield value
            case list() | tuple():
                yield from _awaited(value)
            case dict():
                yield from _awaited(value.values())


async def _value(argument: Any) -> Any:
    """The argument with the value of each `Running` in its place."""
    match argument:
        case Running():
            return await argument
        case list():
            return [await _value(item) for item in argument]
        case tuple() if not hasattr(argument, "_fields"):
            return tuple([await _value(item) for item in argument])
        case dict():
            return {key: await _value(item) for key, item in argument.items()}
        case _:
            return argument


class Checks(AbstractAsyncContextManager["Checks"]):
    """A group of checks of one stage; made by `Pipeline.parallel`."""

    def __init__(self, stage: StageRecord, journal: Journal, config: Config) -> None:
        self._stage = stage
        self._journal = journal
        self._config = config
        self._group: TaskGroup
        self._own: list[CheckRecord] = []

    def start(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> Running[T]:
        """Start a check, or anything else that must succeed before the gate opens.

        Options of `[checks.<name of the function>]` in the configuration are added as keyword
        arguments. It failed when it raises, or returns a `Check` that has not passed.

        Args:
            function: the stage function.
            args, kwargs: what it is called with. In place of a value may stand the `Running` that
                gives it, also in a list: it is awaited first, and where it did not pass, this one
                is not begun.

        Raises:
            ConfigError: the configuration has an option that the function does not take.
        """
        return self._start(function, args, kwargs, fail_fast=False)

    def fail_fast(
        self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
    ) -> Running[T]:
        """As `start`, but a failure ends the other checks of the group at once."""
        return self._start(function, args, kwargs, fail_fast=True)

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        told = isinstance(error, _AlreadyTold)
        handled: bool | None = told
        try:
            if error is None or told:
                await self._group.__aexit__(None, None, None)
            else:
                # The body itself failed (its checks are of no use now), or fail-fast ended it.
                handled = await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # Checks do not raise here (see `_run`), so that this is the body's own error, wrapped.
            if error is not None and not told and group.subgroup(lambda e: e is error):
                raise error from error.__cause__
            raise
        failing = [check for check in self._own if check.result in (Result.FAILED, Result.BROKEN)]
        if failing:
            raise gate_error(failing) from None
        return bool(handled)

    def _start(
        self,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        fail_fast: bool,
    ) -> Running[T]:
        options = options_for(function, self._config, kwargs)
        record = CheckRecord(self._unique(getattr(function, "__name__", type(function).__name__)))
        before = list(_awaited([*args, *kwargs.values()]))
        record.after = tuple(dict.fromkeys(running.record.name for running in before))
        self._stage.checks.append(record)
        self._own.append(record)
        running: Running[T] = Running(record)

        async def call() -> T:
            values = [await _value(argument) for argument in args]
            named = {name: await _value(argument) for name, argument in kwargs.items()}
            return await function(*values, **{**options, **named})

        self._group.start_soon(self._run_after, before, call, running, fail_fast)
        return running

    def _unique(self, name: str) -> str:
        taken = {check.name for check in self._stage.checks}
        number = 2
        unique = name
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        return unique

    async def _run_after(
        self,
        before: Sequence[Running[Any]],
        call: Callable[[], Awaitable[T]],
        running: Running[T],
        fail_fast: bool,
    ) -> None:
        record = running.record
        for other in before:
            await other.ended()
            if other.record.result is not Result.PASSED:
                record.result = Result.CANCELLED
                record.summary = f"not begun: {other.record.name} {other.record.result}"
                running._fail(_AlreadyTold())
                await self._journal.check_finished(self._stage, record)
                return
        await self._run(call, running, fail_fast)

    async def _run(
        self, call: Callable[[], Awaitable[T]], running: Running[T], fail_fast: bool
    ) -> None:
        record = running.record
        started = time.monotonic()
        attributes = {"cicd.pipeline.task.name": record.name, "cicd.pipeline.task.type": "test"}
        with _tracer.start_as_current_span(record.name, attributes=attributes) as span:
            try:
                value = await call()
                record.result, record.summary = Result.PASSED, "done"
                if isinstance(value, Check):
                    self._note(record, value)
                    await self._keep_reports(record, value)
                running._end(value)
            except Exception as error:
                self._note_error(record, error)
                running._fail(error)
            except BaseException as error:  # cancelled: by the budget, a signal, or fail-fast
                record.result, record.summary = Result.CANCELLED, "cancelled"
                running._fail(error)
                raise
            finally:
                record.seconds = time.monotonic() - started
                assert record.result is not None
                conclusion = _CONCLUSION[record.result]
                span.set_attribute("cicd.pipeline.task.run.result", conclusion)
                if record.result in (Result.FAILED, Result.BROKEN):
                    span.set_status(trace.StatusCode.ERROR, record.summary)
                await self._journal.check_finished(self._stage, record)
        if fail_fast and record.result != Result.PASSED:
            self._group.cancel_scope.cancel()

    def _note(self, record: CheckRecord, check: Check) -> None:
        record.result = Result.PASSED if check.passed else Result.FAILED
        record.summary = check.summary
        record.failures = check.failures
        record.waived = check.waived
        record.notes = check.notes
        record.evidence = check.evidence
        if check.ran_at is not None:
            record.cached = check.ran_at < self._journal.started

    def _note_error(self, record: CheckRecord, error: Exception) -> None:
        problem, code, _ = explain(error)
        broken = code != ExitCode.CHECK_FAILED
        record.result = Result.BROKEN if broken else Result.FAILED
        record.summary, *rest = problem.message.splitlines()
        record.details = tuple(line.strip() for line in rest)
        record.remedy = problem.remedy
        record.denied = code == ExitCode.POLICY_DENIED
        self._journal.debug(error)

    async def _keep_reports(self, record: CheckRecord, check: Check) -> None:
        folder = self._journal.out / record.name

        async def keep(name: str, file: _File) -> None:
            await file.export(str(folder / name))

        async with anyio.create_task_group() as group:
            for name, file in check.reports.items():
                group.start_soon(keep, name, file)
        record.files = tuple(
            str((folder / name).relative_to(self._journal.root)) for name in check.reports
        )
