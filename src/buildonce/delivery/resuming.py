"""`resume`: what killed processes left unfinished is continued, or taken back.

    ended = await resume(config.environments, options, only="production")

A rollout is continued from the traffic that it had, its watches armed again, when its release had
been started and found healthy. It is taken back when that was already begun, when part of its
promotion went back, when tests of a wave are missing that only its pipeline can run, or when asked
for. Killed while doing so, it is resumed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from buildonce.config import EnvironmentConfig
from buildonce.delivery.naming import known_release
from buildonce.delivery.options import Options
from buildonce.delivery.promotion import AfterWave, Promotion
from buildonce.delivery.recovery import recover
from buildonce.delivery.smoke import Smoke
from buildonce.ledger import Promotion as Recorded
from buildonce.ledger import Rollout
from buildonce.release import Release


@dataclass(frozen=True)
class Resumed:
    """What became of one rollout or promotion.

    Attributes:
        id: of the promotion, or of the rollout that was of none.
        version: of its release.
        environments: where.
        result: "succeeded" or "rolled-back".
    """

    id: str
    version: str
    environments: tuple[str, ...]
    result: str


async def resume(
    environments: Mapping[str, EnvironmentConfig],
    options: Options,
    *,
    only: str | None = None,
    back: bool = False,
    smoke: Smoke | None = None,
    after_wave: AfterWave | None = None,
    untested: bool = False,
) -> list[Resumed]:
    """Bring everything unfinished to an end.

    Args:
        environments: all places, by name.
        options: how; the ledger has what is unfinished.
        only: what concerns this environment, and its revival if it is dead.
        back: take it back also where it could be continued; what was proven stays.
        smoke, after_wave: the tests, as the rollout had them.
        untested: continue also without the tests of waves that the rollout had.

    Raises:
        EnvironmentBusy: somebody is at it.
        RolledBack, …: continuing failed, as `deploy`.
    """
    can_test = untested or after_wave is not None
    done: list[Resumed] = []
    for promotion in await _unfinished_promotions(options, only):
        gone = [n for wave in promotion.waves for n in wave if n not in environments]
        if gone:
            options.progress(f"{promotion.id}: {', '.join(gone)} is configured no more; left")
            continue
        missing = [] if can_test else [f"wave {number}" for number in promotion.untested]
        if missing and not promotion.proven and not back:
            options.progress(_untested(promotion.version, ", ".join(missing)))
        away = back or bool(missing)
        done.append(await _promotion(promotion, environments, options, away, smoke, after_wave))
    places = [environments[only]] if only is not None else list(environments.values())
    for place in places:
        for rollout in await _unfinished(place.name, options):
            untestable = not can_test and bool(rollout.plan.get("tests"))
            if untestable and not rollout.passed("proven") and not back:
                options.progress(_untested(rollout.version, place.name))
            away = back or untestable
            done.append(await _rollout(rollout, place, options, away, smoke, after_wave))
    for place in places:
        await _end(place, options)
    return done


def _untested(version: str, where: str) -> str:
    return (
        f"{version}: {where} was to be tested, and only the pipeline can: taken back "
        "(with the tests: run the pipeline again; without: resume with --untested)"
    )


async def interrupted(environment: str, options: Options) -> bool:
    """Whether something of that environment waits for `resume`; while nobody holds its lease."""
    return bool(await _unfinished(environment, options, of_promotions=True))


async def _promotion(
    recorded: Recorded,
    environments: Mapping[str, EnvironmentConfig],
    options: Options,
    back: bool,
    smoke: Smoke | None,
    after_wave: AfterWave | None,
) -> Resumed:
    waves = [[environments[name] for name in wave] for wave in recorded.waves]
    rollouts = [found for one in recorded.rollouts if (found := await options.ledger.rollout(one))]
    newest = {rollout.environment: rollout for rollout in rollouts}
    going_back = any(
        r.result in ("rolled-back", "failed") or any(s.name == "restore" for s in r.steps)
        for r in newest.values()
    )
    if recorded.proven or going_back or back:
        for name in newest:
            await _end(environments[name], options)
        ended = [r for n in newest.values() if (r := await options.ledger.rollout(n.id))]
        went = bool(ended) and all(r.succeeded for r in ended) and recorded.proven
        result = "succeeded" if went else "rolled-back"
        await options.ledger.append(
            "promotion.finished",
            run=options.run,
            data={
                "promotion": recorded.id,
                "result": result,
                "seconds": max(0.0, (options.clock.now() - recorded.started).total_seconds()),
                "cause": None if went else "interrupted",
            },
        )
    else:
        options.progress(f"continuing {recorded.version} through {len(waves)} waves")
        adopted = {
            name: rollout
            for name, rollout in newest.items()
            if await _can_continue(rollout, environments[name], options)
        }
        await Promotion(
            await _release(recorded.version, recorded.digest, options),
            waves,
            replace(
                options,
                reason="deploy",
                concurrency=int(recorded.data.get("concurrency", options.concurrency)),
            ),
            bake=timedelta(seconds=float(recorded.data.get("bake", 0.0))),
            smoke=smoke,
            after_wave=after_wave,
            id=recorded.id,
            resumed=True,
            adopted=adopted,
        ).run()
        result = "succeeded"
    names = tuple(name for wave in recorded.waves for name in wave)
    return Resumed(recorded.id, recorded.version, names, result)


async def _rollout(
    rollout: Rollout,
    place: EnvironmentConfig,
    options: Options,
    back: bool,
    smoke: Smoke | None,
    after_wave: AfterWave | None,
) -> Resumed:
    result = "succeeded"
    if (
        not back
        and not rollout.passed("proven")
        and not any(step.name == "restore" for step in rollout.steps)
        and await _can_continue(rollout, place, options)
    ):
        await Promotion(
            await _release(rollout.version, rollout.digest, options),
            [[place]],
            replace(options, reason="rollback" if rollout.reason == "rollback" else "deploy"),
            smoke=smoke,
            after_wave=after_wave,
            adopted={place.name: rollout},
        ).run()
    else:
        await _end(place, options)
        ended = await options.ledger.rollout(rollout.id)
        result = ended.result or "failed" if ended is not None else "failed"
    return Resumed(rollout.id, rollout.version, (place.name,), result)


async def _end(place: EnvironmentConfig, options: Options) -> None:
    target = await options.open(place)
    async with options.leases_of(place).hold(
        place.name, run=options.run, wait=options.wait, say=options.progress
    ) as lease:
        target.fence = lease.token
        await recover(target, place, ledger=options.ledger, progress=options.progress)


async def _can_continue(rollout: Rollout, place: EnvironmentConfig, options: Options) -> bool:
    """Whether its candidate is there and had been healthy."""
    if rollout.result is not None or not rollout.passed("prepared"):
        return False
    pending = await (await options.open(place)).pending()
    return pending is not None and pending.rollout == rollout.id


async def _unfinished_promotions(options: Options, only: str | None) -> Sequence[Recorded]:
    return [
        one
        for one in await options.ledger.promotions(limit=None)
        if one.result is None and (only is None or any(only in wave for wave in one.waves))
    ]


async def _unfinished(
    environment: str, options: Options, *, of_promotions: bool = False
) -> list[Rollout]:
    return [
        one
        for one in await options.ledger.rollouts(environment)
        if one.result is None and (of_promotions or one.promotion is None)
    ]


async def _release(version: str, digest: str, options: Options) -> Release:
    found = await known_release(version, ledger=options.ledger)
    if found.image.digest != digest:
        found = await known_release(digest, ledger=options.ledger)
    return found
