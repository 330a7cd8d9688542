"""From a pipeline to its environments: what may be deployed where, how, and what is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from urllib.parse import urlsplit

import dagger
from dagger import dag
from opentelemetry import trace

from buildonce import delivery
from buildonce.config import Config, ConfigError, EnvironmentConfig
from buildonce.delivery.waves import To
from buildonce.ledger import Ledger
from buildonce.loopback import is_loopback
from buildonce.pipeline.journal import Journal
from buildonce.release import Release
from buildonce.release.policy_check import verifier
from buildonce.report import RolloutRecord
from buildonce.stages import Deployment

_tracer = trace.get_tracer("buildonce")

AfterWave = Callable[[Sequence[Deployment]], Awaitable[None]]
"""Tests of a wave: gets its environments as containers reach them; raising brings all back."""


class Deploying:
    """Deploys for one run of a pipeline.

    Args:
        config: has environments, waves, policies and approvers.
        ledger: gets every step.
        journal: has the run's record, and the terminal.
        actor: who runs the pipeline.
    """

    def __init__(self, config: Config, ledger: Ledger, journal: Journal, *, actor: str) -> None:
        self._config = config
        self._ledger = ledger
        self._journal = journal
        self._actor = actor

    async def deploy(
        self,
        release: Release,
        to: To,
        *,
        smoke: delivery.Smoke | None,
        after_wave: AfterWave | None,
        bake: timedelta | None,
        awaiting: Callable[[], AbstractContextManager[object]],
    ) -> Deployment:
        """As `Pipeline.deploy`.

        Args:
            awaiting: entered while a person is awaited.
        """
        config, run = self._config, self._journal.record.run
        waves, bake = delivery.planned_waves(config, to, bake=bake)
        self._refuse_on_demand(waves)
        await delivery.check_order(waves, release, config=config, ledger=self._ledger)
        reached: list[delivery.Reached] = []

        async def tests(wave: Sequence[delivery.Reached]) -> None:
            reached.extend(wave)
            if after_wave is not None:
                await after_wave([_deployment(one, release) for one in wave])

        name = to if isinstance(to, str) else ", ".join(p.name for wave in waves for p in wave)
        with _tracer.start_as_current_span(
            f"deploy {name}",
            attributes={"cicd.pipeline.task.name": name, "cicd.pipeline.task.type": "deploy"},
        ):
            rollouts = await delivery.deliver(
                release,
                waves,
                delivery.Options(
                    project=config.project.name,
                    ledger=self._ledger,
                    run=run,
                    progress=self._say,
                    verify=verifier(config, ledger=self._ledger, run=run, say=self._say),
                    approvers=config.approvers,
                    actor=self._actor,
                    awaiting=awaiting,
                    concurrency=delivery.concurrency_of(config, to),
                    tests=after_wave is not None,
                    config=config,
                ),
                bake=bake,
                smoke=smoke,
                after_wave=tests,
            )
        for one, rollout in zip(reached, rollouts, strict=True):
            self._journal.record.rollouts.append(
                RolloutRecord(
                    one.environment.name, one.url, one.changed, rollout.digest, rollout.shares
                )
            )
        return _deployment(reached[-1], release)

    def _refuse_on_demand(self, waves: Sequence[Sequence[EnvironmentConfig]]) -> None:
        for place in (place for wave in waves for place in wave):
            if place.deploy == "on-demand":
                raise ConfigError(
                    f"{self._config.where('environments', place.name, 'deploy')}: {place.name} is "
                    "deployed on demand, never by a pipeline",
                    remedy=f"buildonce deploy {place.name}",
                )

    def _say(self, line: str) -> None:
        self._journal.progress.say(f"  {line}")


def _deployment(reached: delivery.Reached, release: Release) -> Deployment:
    # Where nothing changed, what was tested before is the same now.
    identity, name = f"{release.image.digest} {reached.brought_by}", reached.environment.name
    port = urlsplit(reached.url).port
    if port is None or not is_loopback(reached.url):
        return Deployment(None, None, identity, name, reached.url)
    forward = dagger.PortForward(backend=port, frontend=port)
    return Deployment(dag.host().service([forward]), port, identity, name)
