"""What runs in each environment, as values to print: target and ledger side by side.

for line in await status(config, ledger=ledger):
    print(line.environment, line.version, line.health)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.target import Target
from buildonce.delivery.targets import open_leases
from buildonce.errors import BuildonceError
from buildonce.ledger import Ledger


@dataclass(frozen=True)
class EnvironmentStatus:
    """One environment now.

    Attributes:
        version, digest, since: of what serves; None where nothing was deployed.
        health: "healthy", "unhealthy", "empty", "deploying", "interrupted" (a rollout whose process
            is gone; `buildonce resume` continues it, the next deployment takes it back) or
            "unknown" (it cannot be reached from here).
        detail: more on the health; empty where there is no more.
        recorded_digest: what the ledger says runs there.
    """

    environment: str
    url: str
    version: str | None
    revision: str | None
    digest: str | None
    since: datetime | None
    health: str
    detail: str
    recorded_digest: str | None

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {**asdict(self), "since": self.since.isoformat() if self.since else None}


async def unreachable(
    environment: EnvironmentConfig, error: BuildonceError, *, ledger: Ledger
) -> EnvironmentStatus:
    """An environment of which only the ledger can tell here."""
    recorded = await ledger.current(environment.name)
    return EnvironmentStatus(
        environment=environment.name,
        url=environment.url,
        version=None,
        revision=None,
        digest=None,
        since=None,
        health="unknown",
        detail=error.message,
        recorded_digest=recorded.digest if recorded is not None else None,
    )


async def environment_status(
    environment: EnvironmentConfig, *, project: str, target: Target, ledger: Ledger
) -> EnvironmentStatus:
    """What one environment runs; changes nothing."""
    deployed = await target.current()
    recorded = await ledger.current(environment.name)
    health, detail = "empty", ""
    if deployed is not None:
        health, detail = ("healthy" if deployed.healthy else "unhealthy"), deployed.detail
    if who := await open_leases(environment, project=project).holder(environment.name):
        health, detail = "deploying", f"{who}{await _doing(environment.name, ledger)}"
    elif await is_interrupted(environment, target=target, ledger=ledger):
        health, detail = "interrupted", f"buildonce resume {environment.name}"
    elif deployed is not None and recorded is not None and recorded.digest != deployed.digest:
        detail = detail or f"the ledger says that {recorded.version} runs"
    return EnvironmentStatus(
        environment=environment.name,
        url=environment.url,
        version=deployed.version if deployed else None,
        revision=deployed.revision if deployed else None,
        digest=deployed.digest if deployed else None,
        since=deployed.started if deployed else None,
        health=health,
        detail=detail,
        recorded_digest=recorded.digest if recorded else None,
    )


async def _doing(environment: str, ledger: Ledger) -> str:
    """What the rollout under way is at, for a sentence; empty when it has not begun."""
    newest = next(iter(await ledger.rollouts(environment, limit=1)), None)
    if newest is None or newest.result is not None:
        return ""
    steps = [step for step in newest.steps if step.name != "watch"]
    shares = [s.data["percent"] for s in steps if s.name == "shift" and s.data["state"] == "done"]
    at = f" at {shares[-1]} % of the traffic" if shares else ""
    return f": {newest.version}{at}{f', {steps[-1].name}' if steps else ''}"


async def is_interrupted(environment: EnvironmentConfig, *, target: Target, ledger: Ledger) -> bool:
    """Whether a rollout was begun and not ended; only meaningful while nobody holds the lock."""
    if await target.pending() is not None:
        return True
    return any(rollout.result is None for rollout in await ledger.rollouts(environment.name))


def table(lines: list[EnvironmentStatus], age: Callable[[datetime], str]) -> list[tuple[str, ...]]:
    """Rows for people, the heading first."""
    rows: list[tuple[str, ...]] = [("ENVIRONMENT", "VERSION", "DIGEST", "HEALTH", "SINCE", "URL")]
    for line in lines:
        rows.append(
            (
                line.environment,
                line.version or "-",
                line.digest.removeprefix("sha256:")[:12] if line.digest else "-",
                f"{line.health} ({line.detail})" if line.detail else line.health,
                age(line.since) if line.since else "-",
                line.url,
            )
        )
    return rows
