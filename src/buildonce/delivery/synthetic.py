"""Requests that a rollout makes by itself, where there is no traffic to judge a release by.

    async with synthetic.running():
        synthetic.begin()
        ...
    synthetic.split(10)          # {"requests": 412, "answers": {"sha256:…": 40, "sha256:…": 372}}

They take the way of every user, so the proxy or load balancer counts them; answers that are JSON
with a `digest` also tell by which release each was given, whatever the weights say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from buildonce.config.rollout import SyntheticConfig
from buildonce.delivery.smoke import answered_digest
from buildonce.trust import ssl_context

_SHOWN_FAILURES = 5
_UNDER_WAY = 200  # so many unanswered, the next ones wait


class Synthetic:
    """A steady stream of GETs of one address.

    Args:
        url: the environment's.
        config: path and rate.
    """

    def __init__(self, url: str, config: SyntheticConfig) -> None:
        self.url = f"{url}{config.path}"
        self.rate = config.rate
        self.percent: int | None = 0
        """Share of the new release while a request is sent; None while that changes."""
        self.requests = 0
        self.failures: list[str] = []
        self.failed = 0
        self._answers: dict[int, Counter[str]] = {}
        self._begun, self._ended = anyio.Event(), anyio.Event()

    def begin(self) -> None:
        """There is somebody to ask."""
        self._begun.set()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask from `begin` until the block ends; what is under way at its end is waited for.

        Also while the block puts things back after it was cancelled: just then it is wanted.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._stream)
            try:
                yield
            finally:
                self._begun.set()
                self._ended.set()

    def split(self, percent: int) -> dict[str, Any]:
        """Who answered while the new release had that share of the traffic."""
        answers = self._answers.get(percent, Counter())
        return {"requests": sum(answers.values()), "answers": dict(answers)}

    def to_json(self) -> dict[str, Any]:
        """All of it, for the ledger."""
        return {"requests": self.requests, "failed": self.failed, "failures": self.failures}

    async def _stream(self) -> None:
        limits = httpx.Limits(max_connections=_UNDER_WAY, max_keepalive_connections=20)
        with anyio.CancelScope(shield=True):
            await self._begun.wait()
            async with (
                httpx.AsyncClient(
                    trust_env=False, verify=ssl_context(), timeout=30, limits=limits
                ) as client,
                anyio.create_task_group() as group,
            ):
                began, number = anyio.current_time(), 0
                while not self._ended.is_set():
                    group.start_soon(self._ask, client)
                    number += 1
                    pause = began + number / self.rate - anyio.current_time()
                    if pause < -1:  # this machine is too slow for the rate: do not pile them up
                        began, number = anyio.current_time(), 0
                    with anyio.move_on_after(max(0.0, pause)):
                        await self._ended.wait()

    async def _ask(self, client: httpx.AsyncClient) -> None:
        percent = self.percent
        self.requests += 1
        try:
            response = await client.get(self.url)
        except httpx.HTTPError as error:
            self._failure(f"{type(error).__name__}: {error}")
            return
        if response.status_code >= 500:
            self._failure(f"it answered {response.status_code}")
        elif percent is not None and percent == self.percent:
            digest = answered_digest(response)
            if digest is not None:
                self._answers.setdefault(percent, Counter())[digest] += 1

    def _failure(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < _SHOWN_FAILURES:
            self.failures.append(what)
