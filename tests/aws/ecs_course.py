"""How an ECS deployment goes: rolling with a circuit breaker, or by stages as blue/green and such.

Tasks start, become healthy, fail to be pulled, or crash; stages pause at their hooks; an alarm or a
stop at any moment takes it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .ecs_state import NATIVE, Deployment, GoBack, Script, Service

if TYPE_CHECKING:
    from .place import Place

_START, _HEALTHY, _DRAIN = 10, 20, 10  # seconds that a task takes to each
_BREAKER = 3  # failed tasks, the least that ECS waits for


class Course:
    """The deployments of one account and region."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def go_on(self, service: Service, one: Deployment, now: float) -> None:
        """Do all of it that was due until now."""
        while not one.over:
            assert one.script is not None
            alarm = self._ringing(one)
            interrupted = one.stop or alarm
            if interrupted and one.status in ("PENDING", "IN_PROGRESS"):
                one.wake = min(one.wake, now)
                try:
                    one.status, one.reason = "ROLLBACK_IN_PROGRESS", interrupted
                    one.hook = None
                    one.wake += one.script.throw(GoBack(interrupted))
                except StopIteration:
                    return
                continue
            if one.hook is not None and not one.going_on:
                if now < one.hook_until:
                    return
                one.stop = "the lifecycle hook timed out"
                continue
            if one.wake > now:
                return
            one.going_on = False
            try:
                one.wake += next(one.script)
            except StopIteration:
                return

    def _ringing(self, one: Deployment) -> str | None:
        alarms = one.configuration.get("alarms", {})
        if not alarms.get("enable") or not alarms.get("rollback"):
            return None
        for name in alarms["alarmNames"]:
            if self.place.alarms.state(name) == "ALARM":
                return f"alarm detected: {name}"
        return None

    def script(self, service: Service, one: Deployment) -> Script:
        """All that it does, from its beginning to one of its ends."""
        strategy = one.configuration.get("strategy", "ROLLING")
        try:
            yield 1
            one.status = "IN_PROGRESS"
            if strategy in NATIVE and one.source is not None:
                yield from self._shifted(service, one, strategy)
            else:
                yield from self._rolled(service, one)
            one.status, one.stage = "SUCCESSFUL", "CLEAN_UP"
            service.serving = one.target
        except GoBack as back:
            one.status, one.reason = "ROLLBACK_IN_PROGRESS", str(back)
            one.hook = None
            self._back(service, one)
            yield _DRAIN
            one.target.gone()
            one.status = "ROLLBACK_SUCCESSFUL"

    def _back(self, service: Service, one: Deployment) -> None:
        one.target.weight = 0.0
        if one.source is not None:
            one.source.weight = 100.0
            one.source.running = one.source.healthy = service.desired
            service.definition = one.source.definition
            service.serving = one.source

    def _rolled(self, service: Service, one: Deployment) -> Script:
        yield from self._started(service, one)
        if one.source is not None:
            one.source.weight = 0.0
        one.target.weight = 100.0
        yield _DRAIN
        if one.source is not None and one.source is not one.target:
            one.source.gone()

    def _started(self, service: Service, one: Deployment) -> Script:
        """All tasks run and are healthy; or the circuit breaker ends it."""
        breaker = one.configuration.get("deploymentCircuitBreaker", {})
        limit = max(_BREAKER, service.desired // 2)
        while True:
            cause = self.place.refusal(one.target.definition.image)
            yield _START
            if cause is None:
                one.target.running = service.desired
                if self.place.unhealthy(one.target.definition.image):
                    cause = "Task failed ELB health checks"
            if cause is None:
                yield _HEALTHY - _START
                one.target.healthy = one.target.running
                return
            one.failed += 1
            one.target.running = 0
            service.events.insert(0, f"(service {service.name}) {cause}")
            if breaker.get("enable") and one.failed >= limit:
                reason = f"ECS deployment circuit breaker: tasks failed to start: {cause}"
                one.reason = reason
                if breaker.get("rollback") and one.source is not None:
                    raise GoBack(reason)
                one.status = "STOPPED"
                return
            yield _START

    def _shifted(self, service: Service, one: Deployment, strategy: str) -> Script:
        one.stage = "PRE_SCALE_UP"
        yield from self._hooked(one)
        one.stage = "SCALE_UP"
        yield from self._started(service, one)
        for stage in ("POST_SCALE_UP", "TEST_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT"):
            one.stage = stage
            yield from self._hooked(one)
        one.stage = "PRODUCTION_TRAFFIC_SHIFT"
        for percent, wait in _steps(one.configuration, strategy):
            assert one.source is not None
            one.target.weight, one.source.weight = percent, 100.0 - percent
            yield wait
        one.stage = "POST_PRODUCTION_TRAFFIC_SHIFT"
        yield from self._hooked(one)
        one.stage = "BAKE_TIME"
        yield 60.0 * one.configuration.get("bakeTimeInMinutes", 0)
        one.stage = "CLEAN_UP"
        yield _DRAIN
        if one.source is not None:
            one.source.gone()

    def _hooked(self, one: Deployment) -> Script:
        for hook in one.configuration.get("lifecycleHooks", ()):
            if one.stage in hook["lifecycleStages"] and hook.get("targetType") == "PAUSE":
                minutes = hook.get("timeoutConfiguration", {}).get("timeoutInMinutes", 1440)
                one.hook = f"hook-{one.stage}"
                one.hook_until = self.place.clock.monotonic() + 60 * minutes
                yield 0
                one.hook = None
                # Where it went on from is now, not when it began to wait.
                one.wake = max(one.wake, self.place.clock.monotonic())
        yield 1


def _steps(configuration: Mapping[str, Any], strategy: str) -> list[tuple[float, float]]:
    """(percent, seconds that it stays so) of a strategy's shift."""
    if strategy == "CANARY":
        canary = configuration["canaryConfiguration"]
        wait = 60.0 * canary.get("canaryBakeTimeInMinutes", 10)
        return [(float(canary.get("canaryPercent", 5)), wait), (100.0, 1.0)]
    if strategy == "LINEAR":
        linear = configuration["linearConfiguration"]
        step = float(linear.get("stepPercent", 10))
        wait = 60.0 * linear.get("stepBakeTimeInMinutes", 6)
        percents, at = [], step
        while at < 100:
            percents.append((at, wait))
            at += step
        return [*percents, (100.0, 1.0)]
    return [(100.0, 1.0)]
