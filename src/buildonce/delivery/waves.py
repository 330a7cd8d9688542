"""Where a deployment goes: from a name, or nested lists of names, to places wave by wave.

waves, bake = planned_waves(config, "live")                     # [waves.live]
waves, bake = planned_waves(config, [["pilot"], ["eu", "us"]])  # two waves, no time between
await check_order(waves, release, config=config, ledger=ledger)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from buildonce.config import Config, ConfigError, EnvironmentConfig
from buildonce.config.mistakes import did_you_mean
from buildonce.config.rollout import CONCURRENCY
from buildonce.delivery.errors import OutOfOrder
from buildonce.ledger import Ledger
from buildonce.release import Release

To = str | Sequence[str | Sequence[str]]
"""The name of an environment or of [waves]; or waves, each a name or names of environments."""

Waves = list[list[EnvironmentConfig]]


def planned_waves(
    config: Config, to: To, *, bake: timedelta | None = None
) -> tuple[Waves, timedelta]:
    """The places, wave by wave, and how long to watch after each wave but the last.

    Args:
        config: has the environments and waves.
        to: where.
        bake: in place of the configured time.

    Raises:
        ConfigError: there is no environment of that name, nor waves; or one is named twice.
    """
    if isinstance(to, str) and to in config.waves:
        plan = config.waves[to]
        named: Sequence[Sequence[str]] = plan.environments
        bake = plan.bake if bake is None else bake
    elif isinstance(to, str):
        _must_be_known(config, to)
        named = [[to]]
    else:
        named = [[wave] if isinstance(wave, str) else wave for wave in to]
    waves = [
        [place for name in wave for place in config.environment(name).places] for wave in named
    ]
    _each_once(config, waves)
    return waves, bake or timedelta(0)


async def check_order(
    waves: Sequence[Sequence[EnvironmentConfig]],
    release: Release,
    *,
    config: Config,
    ledger: Ledger,
) -> None:
    """What each environment comes `after` runs the release, or is in a wave before it.

    Raises:
        OutOfOrder: it does not, nor is.
    """
    passed: set[str] = set()
    for wave in waves:
        for place in wave:
            wrong = await out_of_order(place, release, passed, config=config, ledger=ledger)
            if wrong is not None:
                raise wrong
        passed |= {place.name for place in wave}


async def out_of_order(
    place: EnvironmentConfig,
    release: Release,
    passed: Collection[str],
    *,
    config: Config,
    ledger: Ledger,
) -> OutOfOrder | None:
    """Why it is not this environment's turn; None when it is.

    Args:
        passed: names of environments that get the release before it.
    """
    before = config.environment(place.after).places if place.after else ()
    for earlier in before:
        if earlier.name in passed:
            continue
        current = await ledger.current(earlier.name)
        if current is None or current.digest != release.image.digest:
            runs = f"{current.version} does" if current is not None else "nothing does"
            return OutOfOrder(
                f"{place.name} comes after {earlier.name}, where this release "
                f"({release.version}) does not run ({runs})",
                remedy=f"buildonce deploy {earlier.name} --release {release.version}",
            )
    return None


def concurrency_of(config: Config, to: To) -> int:
    """How many environments of it may be changed at the same time."""
    plan = config.waves.get(to) if isinstance(to, str) else None
    return plan.concurrency if plan is not None else CONCURRENCY


def _must_be_known(config: Config, name: str) -> None:
    if name in config.environments or not did_you_mean(name, config.waves):
        return  # what is wrong with it, `Config.environment` says
    known = [*config.environments, *config.waves]
    hint = did_you_mean(name, known)
    raise ConfigError(
        f"{config.path}: neither [environments] nor [waves] has {name!r}{hint}",
        remedy=f"add [waves.{name}] to {config.path}, or give one of: {', '.join(known)}",
    )


def _each_once(config: Config, waves: Waves) -> None:
    names = [place.name for wave in waves for place in wave]
    if not names or not all(waves):
        raise ConfigError(
            "each wave names at least one environment",
            remedy=f"give some of: {', '.join([*config.environments, *config.waves])}",
        )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is in more than one wave", remedy="name each once")
