"""A steady stream of requests, half over kept connections and half over new ones.

async with load("http://127.0.0.1:8102/healthz", rate=100) as seen:
    ...
assert not seen.failures
seen.digests            # how often each digest answered, over all
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio
import httpx


@dataclass
class Seen:
    failures: list[str] = field(default_factory=list)
    digests: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    answers: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.failures) + sum(self.digests.values())

    def between(self, begin: datetime, end: datetime) -> Counter[str]:
        """How often each digest answered in that time."""
        return Counter(digest for at, digest in self.answers if begin <= at <= end)

    def last(self, digest: str) -> datetime:
        """When it answered for the last time."""
        return max(at for at, answered in self.answers if answered == digest)


@asynccontextmanager
async def load(url: str, *, rate: int = 100) -> AsyncIterator[Seen]:
    """Ask `url` `rate` times a second until the block ends; requests under way are waited for."""
    seen = Seen()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    stop = anyio.Event()

    async with (
        httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as kept,
        anyio.create_task_group() as requests,
    ):

        async def ask(number: int) -> None:
            try:
                if number % 2:
                    response = await kept.get(url)
                else:
                    response = await kept.get(url, headers={"Connection": "close"})
                if response.status_code != 200:
                    seen.failures.append(f"{response.status_code}: {response.text[:100]}")
                    return
                digest = json.loads(response.text)["digest"]
                seen.digests[digest] += 1
                seen.answers.append((datetime.now(UTC), digest))
                if not seen.order or seen.order[-1] != digest:
                    seen.order.append(digest)
            except Exception as error:
                seen.failures.append(f"{type(error).__name__}: {error}")

        async def stream() -> None:
            began, number = anyio.current_time(), 0
            while not stop.is_set():
                requests.start_soon(ask, number)
                number += 1
                await anyio.sleep(max(0.0, began + number / rate - anyio.current_time()))

        requests.start_soon(stream)
        await anyio.sleep(0.3)
        try:
            yield seen
            await anyio.sleep(0.3)
        finally:
            stop.set()
