"""ECS with traffic of its own: rolling, blue/green, linear, canary, as the service does them.

One service; a rollout is one of ECS's service deployments. It pauses twice for us (a PAUSE hook
needs no function): once when the new tasks are healthy and have no traffic, once when they have
all of it. What happens in between, step by step with its alarms and circuit breaker, is ECS's. If
nobody comes back to a pause, ECS goes back by itself. What serves is written in the service's tags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.ecs import EcsTarget
from buildonce.delivery.aws.errors import AwsRefused, DeploymentFailed
from buildonce.delivery.aws.pointer import Entry, Pointer
from buildonce.delivery.aws.tasks import TaskDefinition
from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.target import Candidate, Deployed, Manifest, Step
from buildonce.release import Release

_READY = "POST_SCALE_UP"
_SHIFTED = "POST_PRODUCTION_TRAFFIC_SHIFT"
_GOING = ("PENDING", "IN_PROGRESS")
_GOING_BACK = ("STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")
_STRATEGIES = {"blue-green": "BLUE_GREEN", "linear": "LINEAR", "canary": "CANARY"}


class NativeEcsTarget(EcsTarget):
    """A `Target` on ECS whose traffic ECS moves: `shift(candidate, 100)` is all of its steps."""

    native = True

    async def current(self) -> Deployed | None:
        service = await self._service()
        active = _pointer(service).active
        if service is None or active is None:
            return None
        return await self.deployed(active, self.name, active.id)

    async def pending(self) -> Candidate | None:
        service = await self._service()
        entry = _pointer(service).candidate
        if service is None or entry is None:
            return None
        definition = await tasks.read(self.aws, self.definition_arn(entry.id))
        return _candidate(entry, definition, await self._percent(service, definition.arn))

    async def repair(self, say: Callable[[str], None]) -> None:
        service = await self._service()
        if service is None or (pointer := _pointer(service)).active is None or pointer.candidate:
            return
        wanted = self.definition_arn(pointer.active.id)
        changes: dict[str, Any] = {}
        if service["taskDefinition"] != wanted:
            changes["taskDefinition"] = wanted
        if service["desiredCount"] < self.environment.service.tasks:
            changes["desiredCount"] = self.environment.service.tasks
        if changes:
            say(f"{self.environment.name}: {self.name} is not as recorded; putting it back")
            await self._update(**changes, deploymentConfiguration=self._configuration("rolling"))

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        definition = await self.define(release, step, manifest)
        outputs = await self.outputs()
        entry = Entry(definition.arn.rpartition("/")[2], rollout, self.aws.clock.now())
        service = await self._service()
        pointer = replace(_pointer(service), candidate=entry)
        async with step("start", container=self.name):
            if service is None:
                await self._create(pointer, definition, rollout)
            else:
                await self._write(service, pointer)
                if self._paused:
                    await self._update(
                        taskDefinition=definition.arn,
                        desiredCount=self.environment.service.tasks,
                        deploymentConfiguration=self._configuration(),
                        loadBalancers=[self._balancer(outputs)],
                    )
        async with step("healthy", path=self.environment.health_path):
            what = f"{release.version} on {self.name}"
            if service is None:
                await self.wait_for(lambda: self.rolled_out(self.name, definition), what)
                await self.must_run(self.name, definition)
            elif self._paused:
                await self.wait_for(lambda: self._reached(definition, _READY), what)
                await self.must_run(self.name, definition)
        return _candidate(entry, definition, 100 if service is None else 0)

    async def shift(self, candidate: Candidate, percent: int) -> None:
        if percent != 100:
            raise TargetFailed(
                f"ECS moves the traffic of {self.environment.name} by itself: no {percent} %",
                remedy='service.strategy = "weighted" for steps of your own',
            )
        service = await self._service()
        pointer = _pointer(service).fenced(self.fence, self.environment.name)
        if service is None or pointer.candidate is None:
            raise TargetFailed(f"nothing is on trial on {self.name}", remedy="buildonce status")
        definition = await tasks.read(self.aws, self.definition_arn(candidate.id))
        what = f"the shift of all traffic to {candidate.release.version}"
        if self._paused and await self._deployment(definition.arn) is not None:
            if pointer.active is not None:
                await self._continue(definition, _READY)
                await self.wait_for(
                    lambda: self._reached(definition, _SHIFTED), what, patience=self._long
                )
            return
        if service["taskDefinition"] != definition.arn:
            await self._update(
                taskDefinition=definition.arn,
                desiredCount=self.environment.service.tasks,
                deploymentConfiguration=self._configuration("rolling"),
            )
        await self.wait_for(lambda: self.rolled_out(self.name, definition), what)
        await self.must_run(self.name, definition)

    async def finish(self, candidate: Candidate) -> None:
        service = await self._service()
        pointer = _pointer(service)
        if service is None or pointer.candidate is None or pointer.candidate.id != candidate.id:
            return
        definition = await tasks.read(self.aws, self.definition_arn(candidate.id))
        if self._paused and pointer.active is not None:
            pointer.fenced(self.fence, self.environment.name)
            await self._continue(definition, _SHIFTED)
            await self.wait_for(
                lambda: self._ended(definition),
                f"the end of the deployment of {candidate.release.version}",
                patience=self._long,
            )
        await self._write(service, pointer.finished())

    async def restore(self, candidate: Candidate, why: str) -> None:
        service = await self._service()
        pointer = _pointer(service)
        if service is None or pointer.candidate is None or pointer.candidate.id != candidate.id:
            return
        pointer.fenced(self.fence, self.environment.name)
        if pointer.active is None:
            # Nothing ran here before: nothing shall run now.
            await self.delete_service(self.name)
            return
        await self._stop(self.definition_arn(candidate.id))
        previous = await tasks.read(self.aws, self.definition_arn(pointer.active.id))
        service = await self._service() or service
        if service["taskDefinition"] != previous.arn:
            await self._update(
                taskDefinition=previous.arn, deploymentConfiguration=self._configuration("rolling")
            )
        await self.wait_for(
            lambda: self.rolled_out(self.name, previous), f"{previous.release.version} again"
        )
        await self._write(service, pointer.without_candidate())

    async def down(self) -> None:
        await self.delete_service(self.name)

    @property
    def _paused(self) -> bool:
        """Whether ECS's strategy has pauses; rolling has none."""
        return self.environment.service.strategy in _STRATEGIES

    @property
    def _long(self) -> float:
        """Seconds that all of ECS's steps, bakes and clearing up may take."""
        service = self.environment.service
        steps = 100 / service.step_percent if service.strategy == "linear" else 1
        bake = service.bake.total_seconds() if service.bake else 0.0
        return self.patience + steps * service.step_bake.total_seconds() + bake

    def _configuration(self, strategy: str | None = None) -> dict[str, Any]:
        service = self.environment.service
        strategy = strategy or service.strategy
        common: dict[str, Any] = {
            "strategy": _STRATEGIES.get(strategy, "ROLLING"),
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        }
        names = list(self._outputs.listed("Alarms")) if self._outputs else []
        if names:
            common["alarms"] = {"alarmNames": names, "enable": True, "rollback": True}
        if strategy not in _STRATEGIES:
            return common
        minutes = int(service.bake.total_seconds() // 60) if service.bake else 0
        bake = int(service.step_bake.total_seconds() // 60)
        common["bakeTimeInMinutes"] = minutes
        common["lifecycleHooks"] = [
            {
                "targetType": "PAUSE",
                "lifecycleStages": [stage],
                "timeoutConfiguration": {
                    "timeoutInMinutes": int(service.patience.total_seconds() // 60),
                    "action": "ROLLBACK",
                },
            }
            for stage in (_READY, _SHIFTED)
        ]
        if strategy == "linear":
            common["linearConfiguration"] = {
                "stepPercent": service.step_percent,
                "stepBakeTimeInMinutes": bake,
            }
        if strategy == "canary":
            common["canaryConfiguration"] = {
                "canaryPercent": service.step_percent,
                "canaryBakeTimeInMinutes": bake,
            }
        return common

    def _balancer(self, outputs: Any) -> dict[str, Any]:
        return {
            "targetGroupArn": outputs["TargetGroupA"],
            "containerName": tasks.CONTAINER,
            "containerPort": self.environment.service.container_port,
            "advancedConfiguration": {
                "alternateTargetGroupArn": outputs["TargetGroupB"],
                "productionListenerRule": outputs["ListenerRule"],
                "roleArn": outputs["LoadBalancerRole"],
            },
        }

    async def _create(self, pointer: Pointer, definition: TaskDefinition, rollout: str) -> None:
        outputs = await self.outputs()
        parameters = await self.definition(outputs, self.name, definition, outputs["TargetGroupA"])
        # The first deployment replaces nothing: there is nothing to hold it beside.
        configuration = self._configuration("rolling")
        if self._paused:
            parameters["loadBalancers"] = [self._balancer(outputs)]
        await self.aws.call(
            "ecs",
            "CreateService",
            **parameters,
            deploymentConfiguration=configuration,
            clientToken=rollout[:36],
            tags=_as_tags(pointer.fenced(self.fence, self.environment.name)),
        )

    async def _update(self, **changes: Any) -> None:
        cluster = (await self.outputs())["Cluster"]
        await self.aws.call("ecs", "UpdateService", cluster=cluster, service=self.name, **changes)

    async def _service(self) -> dict[str, Any] | None:
        return (await self.services(self.name)).get(self.name)

    async def _write(self, service: dict[str, Any], pointer: Pointer) -> None:
        await self.aws.call(
            "ecs",
            "TagResource",
            resourceArn=service["serviceArn"],
            tags=_as_tags(pointer.fenced(self.fence, self.environment.name)),
        )

    async def _deployment(self, definition: str) -> dict[str, Any] | None:
        """ECS's newest deployment of the service, if it is of this task definition."""
        cluster = (await self.outputs())["Cluster"]
        listed = await self.aws.call(
            "ecs", "ListServiceDeployments", cluster=cluster, service=self.name
        )
        newest = max(listed["serviceDeployments"], key=lambda one: one["createdAt"], default=None)
        if newest is None:
            return None
        revisions = await self.aws.call(
            "ecs",
            "DescribeServiceRevisions",
            serviceRevisionArns=[newest["targetServiceRevisionArn"]],
        )
        if revisions["serviceRevisions"][0]["taskDefinition"] != definition:
            return None
        return await self._described(newest["serviceDeploymentArn"])

    async def _described(self, arn: str) -> dict[str, Any]:
        answer = await self.aws.call(
            "ecs", "DescribeServiceDeployments", serviceDeploymentArns=[arn]
        )
        found: dict[str, Any] = answer["serviceDeployments"][0]
        return found

    async def _percent(self, service: dict[str, Any], definition: str) -> int:
        deployment = await self._deployment(definition)
        if deployment is None:
            return 0
        if deployment["status"] == "SUCCESSFUL":
            return 100
        if deployment["status"] not in _GOING:
            return 0
        target = deployment.get("targetServiceRevision", {})
        return int(target.get("requestedProductionTrafficWeight", 0))

    async def _reached(self, definition: TaskDefinition, stage: str) -> bool:
        """Whether ECS waits for us at that stage.

        Raises:
            DeploymentFailed: it has given up.
        """
        deployment = await self._going(definition)
        return deployment.get("lifecycleStage") == stage and _hook(deployment) is not None

    async def _ended(self, definition: TaskDefinition) -> bool:
        return bool((await self._going(definition))["status"] == "SUCCESSFUL")

    async def _going(self, definition: TaskDefinition) -> dict[str, Any]:
        deployment = await self._deployment(definition.arn)
        if deployment is None:
            raise DeploymentFailed(
                f"ECS has no deployment of {definition.release.version} on {self.name} any more",
                remedy=f"aws ecs list-service-deployments --service {self.name}",
            )
        if deployment["status"] not in (*_GOING, "SUCCESSFUL"):
            reason = deployment.get("statusReason") or "no reason given"
            raise DeploymentFailed(
                f"ECS gave up {definition.release.version} on {self.name}: "
                f"{deployment['status']}: {reason}",
                remedy=f"aws ecs list-service-deployments --service {self.name}",
            )
        return deployment

    async def _continue(self, definition: TaskDefinition, stage: str) -> None:
        """Let ECS go on from that pause; one that it has left already is no error."""
        deployment = await self._going(definition)
        hook = _hook(deployment)
        if deployment.get("lifecycleStage") != stage or hook is None:
            return
        await self.aws.call(
            "ecs",
            "ContinueServiceDeployment",
            serviceDeploymentArn=deployment["serviceDeploymentArn"],
            hookId=hook,
            action="CONTINUE",
        )

    async def _stop(self, definition: str) -> None:
        """Have ECS take a deployment back, and wait until it has."""
        deployment = await self._deployment(definition)
        if deployment is None:
            return
        arn = deployment["serviceDeploymentArn"]
        if deployment["status"] in _GOING:
            try:
                await self.aws.call(
                    "ecs", "StopServiceDeployment", serviceDeploymentArn=arn, stopType="ROLLBACK"
                )
            except AwsRefused as error:
                if error.code != "ConflictException":  # it has ended between our look and this
                    raise

        async def over() -> bool:
            return (await self._described(arn))["status"] not in (*_GOING, *_GOING_BACK)

        await self.wait_for(over, f"the end of ECS's way back on {self.name}")


def _hook(deployment: dict[str, Any]) -> str | None:
    """The hook that the deployment waits at."""
    for one in deployment.get("lifecycleHookDetails", ()):
        if one.get("status") == "AWAITING_ACTION":
            return str(one["hookId"])
    return None


def _pointer(service: dict[str, Any] | None) -> Pointer:
    return Pointer.from_tags(tasks.untagged(service.get("tags", []) if service else []))


def _as_tags(pointer: Pointer) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pointer.to_tags().items()]


def _candidate(entry: Entry, definition: TaskDefinition, percent: int) -> Candidate:
    return Candidate(
        entry.id, entry.rollout, definition.release, percent, manifest=definition.manifest
    )
