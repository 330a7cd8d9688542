"""What a deployment would meet, before anything is touched: the answer to "why is it not there?"

    for place in await foresee(release, waves, options, config=config):
        print(place.environment, place.steps, place.refusals, place.waits)

It reads and asks, and writes nothing, not even that it asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.approval import approval_standing
from buildonce.delivery.options import Options
from buildonce.delivery.plan import planned
from buildonce.delivery.waves import out_of_order
from buildonce.delivery.windows import closed
from buildonce.release import Release
from buildonce.release.errors import Refusal
from buildonce.release.policy_check import examine
from buildonce.release.registry import Registry


@dataclass(frozen=True)
class Foreseen:
    """What one environment has in store for the release.

    Attributes:
        wave: number of its wave, from 1.
        environment: its name.
        runs: version that runs there now, by the ledger; None of none.
        there: just this release runs there already.
        steps: shares of the traffic, in order, percent.
        refusals: why it would not get in.
        waits: whom or what it would wait for.
    """

    wave: int
    environment: str
    runs: str | None
    there: bool
    steps: tuple[int, ...]
    refusals: tuple[str, ...]
    waits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self)


async def foresee(
    release: Release,
    waves: Sequence[Sequence[EnvironmentConfig]],
    options: Options,
    *,
    config: Config,
    in_order: bool = False,
) -> list[Foreseen]:
    """Look at each environment, wave by wave.

    Args:
        in_order: what comes before must run the release, as `promote` demands.

    Raises:
        BuildonceError: a key of the configuration cannot be read.
    """
    found = []
    async with Registry() as registry:
        for number, wave in enumerate(waves, 1):
            passed = {place.name for earlier in waves[: number - 1] for place in earlier}
            for place in wave:
                refusals = await _policy(release, place, options, config, registry)
                if in_order:
                    wrong = await out_of_order(
                        place, release, passed, config=config, ledger=options.ledger
                    )
                    if wrong is not None:
                        refusals.insert(0, wrong.message)
                closure = closed(place.windows, options.clock.now())
                if closure is not None:
                    refusals.append(str(closure))
                against, waits = await _people(release, place, options)
                holder = await options.leases_of(place).holder(place.name)
                if holder is not None:
                    waits.append(f"it is being deployed to by {holder}")
                current = await options.ledger.current(place.name)
                found.append(
                    Foreseen(
                        wave=number,
                        environment=place.name,
                        runs=current.version if current is not None else None,
                        there=current is not None and current.version == release.version,
                        steps=tuple(shift.percent for shift in planned(place.rollout)),
                        refusals=(*refusals, *against),
                        waits=tuple(waits),
                    )
                )
    return found


async def _policy(
    release: Release,
    place: EnvironmentConfig,
    options: Options,
    config: Config,
    registry: Registry,
) -> list[str]:
    try:
        decision = await examine(
            release, place.name, config=config, ledger=options.ledger, registry=registry
        )
    except Refusal as error:
        return [error.message]
    if decision.allowed:
        return []
    what = ", ".join(line.what for line in decision.failing)
    return [
        f"the policy {decision.policy!r} keeps it out: {what} "
        f"(buildonce explain {release.version} --for {place.name})"
    ]


async def _people(
    release: Release, place: EnvironmentConfig, options: Options
) -> tuple[list[str], list[str]]:
    """Who is against it, and who is waited for."""
    if place.approval is None:
        return [], []
    standing = await approval_standing(release, place, options)
    against = [f"{one.actor} refused it" for one in standing.no]
    missing = place.approval.quorum - len(standing.yes)
    waits = [f"{missing} more to approve"] if missing > 0 else []
    return against, [*waits, *(standing.ignored if missing > 0 else ())]
