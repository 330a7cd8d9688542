"""The smoke test that every environment has: ask one path, through the same URL as its users.

await deploy(release, staging, ..., smoke=http_smoke("/healthz", digest=release.image.digest))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx

from buildonce.delivery.errors import SmokeFailed
from buildonce.trust import ssl_context

Smoke = Callable[[str], Awaitable[None]]
"""Gets the environment's URL; raises `SmokeFailed` to have the rollout rolled back."""


def http_smoke(
    path: str = "/healthz",
    *,
    digest: str | None = None,
    attempts: int = 3,
    patience: float = 10.0,
) -> Smoke:
    """A smoke test that asks `path` and wants status 200.

    Args:
        path: absolute path below the environment's URL.
        digest: where the answer is a JSON object with a "digest", it must be this one.
        attempts: how often a request that got no answer at all is tried; an answer is final.
        patience: seconds for each attempt.
    """

    async def smoke(url: str) -> None:
        response = await _ask(f"{url}{path}", attempts=attempts, patience=patience)
        if response.status_code != 200:
            raise SmokeFailed(
                f"GET {url}{path} answered {response.status_code}, not 200: {_excerpt(response)}",
                remedy=f"curl -i {url}{path}",
            )
        answered = answered_digest(response)
        if digest is not None and answered is not None and answered != digest:
            raise SmokeFailed(
                f"GET {url}{path} was answered by digest {answered}, not {digest}",
                remedy="buildonce status",
            )

    return smoke


def answered_digest(response: httpx.Response) -> str | None:
    """The "digest" of a JSON answer; None where there is none."""
    try:
        body: Any = response.json()
    except ValueError:
        return None
    found = body.get("digest") if isinstance(body, dict) else None
    return found if isinstance(found, str) and found else None


async def _ask(url: str, *, attempts: int, patience: float) -> httpx.Response:
    # trust_env off: a proxy of the company has no business with this machine's loopback.
    async with httpx.AsyncClient(trust_env=False, verify=ssl_context(), timeout=patience) as client:
        for attempt in range(1, attempts + 1):
            try:
                return await client.get(url)
            except httpx.TransportError as error:
                if attempt == attempts:
                    raise SmokeFailed(
                        f"GET {url} got no answer in {attempts} attempts: "
                        f"{error or type(error).__name__}",
                        remedy=f"curl -i {url}",
                    ) from error
                await anyio.sleep(0.5)
    raise AssertionError("attempts is at least 1")


def _excerpt(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return (text[:200] + "…") if len(text) > 200 else text or "(empty body)"
