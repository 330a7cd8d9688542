"""A job of the daemon's that stays open, so that we may solve in it what we like."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

from google.protobuf.message import Message

from buildonce.engine.buildkit.calls import BRIDGE, CONTROL, Caller
from buildonce.engine.buildkit.errors import BuildkitError, DaemonGone, SolveError
from buildonce.engine.buildkit.progress import Progress, last_words
from buildonce.engine.buildkit.proto import control_pb2, gateway_pb2, ops_pb2

Answer = TypeVar("Answer", bound=Message)

# How long the daemon gets to end a job that we have finished with, in seconds.
FAREWELL = 10.0


class Job:
    """A solve without a definition: the daemon waits for us to say what to do, and its result."""

    def __init__(
        self, caller: Caller, request: control_pb2.SolveRequest, progress: Progress
    ) -> None:
        """It is open at once: the daemon lets calls wait until it knows of it."""
        self.ref = request.Ref
        self.caller = caller.within(request.Ref)
        self._task = asyncio.create_task(
            caller.call(CONTROL + "Solve", request, control_pb2.SolveResponse)
        )
        self._status = progress.follow(caller, request.Ref)

    async def call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        definition: ops_pb2.Definition | None = None,
    ) -> Answer:
        """One call within the job.

        Raises:
            BuildkitError: the call failed, or the job has ended.
        """
        if self._task.done():
            raise self._ended(None)
        try:
            return await self.caller.call(BRIDGE + method, request, answer, definition=definition)
        except SolveError as error:
            if self._task.done() or "unknown job" in error.message:
                raise self._ended(error) from None
            raise

    async def finish(self, result: gateway_pb2.Result) -> dict[str, str]:
        """End the job with a result for its exporters, and answer what they say.

        Raises:
            SolveError: an exporter failed.
        """
        request = gateway_pb2.ReturnRequest(result=result)
        await self.call("Return", request, gateway_pb2.ReturnResponse)
        return dict((await asyncio.shield(self._task)).ExporterResponse)

    async def close(self) -> None:
        """End the job; its references are gone after this."""
        if not self._task.done():
            # It may have ended by itself, or the daemon has.
            with suppress(BuildkitError, TimeoutError):
                await asyncio.wait_for(self.finish(gateway_pb2.Result()), FAREWELL)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await last_words(self._status)

    def _ended(self, error: SolveError | None) -> BuildkitError:
        """Why the job is over although nobody closed it."""
        if self._task.done() and not self._task.cancelled():
            cause = self._task.exception()
            if isinstance(cause, BuildkitError):
                return cause
        text = f": {error.message}" if error is not None else ""
        return DaemonGone(f"buildkitd at {self.caller.address} has ended the build{text}")
