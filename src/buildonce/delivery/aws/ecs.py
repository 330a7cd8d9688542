"""What every way of deploying to ECS has in common: the stack, tasks and their health, waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.alarms import watches_of
from buildonce.delivery.aws.errors import AwsRefused, DeploymentFailed
from buildonce.delivery.aws.outputs import Outputs, read_outputs, stack_name
from buildonce.delivery.aws.pointer import Entry
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.tasks import TaskDefinition
from buildonce.delivery.errors import NotHealthy, WrongDigest
from buildonce.delivery.target import Candidate, Deployed, Manifest
from buildonce.delivery.watch import Watch
from buildonce.release import Release

LOOK_AGAIN = 5.0
"""Seconds between two looks at something that ECS is doing."""

_PATIENCE = timedelta(minutes=15)
_OURS = "health_timeout"

Copy = Callable[[Release, str], Awaitable[None]]
"""Brings a release's image and evidence into another repository, and verifies them there."""


class EcsTarget:
    """An environment on ECS; see its two kinds.

    Args:
        environment: a place of one region.
        project: whose environment it is.
        aws: the session in its account and region.
        copy: brings the image into the environment's own registry, where it has one.
    """

    fence = 0
    native = False

    def __init__(
        self,
        environment: EnvironmentConfig,
        *,
        project: str,
        aws: AwsSession,
        copy: Copy | None = None,
    ) -> None:
        self.environment = environment
        self.aws = aws
        self.name = f"{project}-{environment.name}"
        self._stack = stack_name(project, environment.name, "service")
        self._copy = copy
        self._outputs: Outputs | None = None

    def fingerprint(self, release: Release, manifest: Manifest | None = None) -> str:
        return tasks.fingerprint(release, self.environment, manifest)

    async def url(self) -> str:
        return self.environment.address or (await self.outputs())["Url"]

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        return watches_of(
            self.aws,
            self.environment,
            names=self._outputs.listed("Alarms") if self._outputs else (),
        )

    async def outputs(self) -> Outputs:
        """What the environment's stack says; read once."""
        if self._outputs is None:
            self._outputs = await read_outputs(
                self.aws, self._stack, environment=self.environment.name
            )
        return self._outputs

    @property
    def patience(self) -> float:
        """Seconds that tasks get to become healthy."""
        given = _OURS in self.environment.model_fields_set
        return (self.environment.health_timeout if given else _PATIENCE).total_seconds()

    async def define(self, release: Release, manifest: Manifest | None) -> TaskDefinition:
        """The task definition to deploy: a new one, or just the one that ran then."""
        if manifest:
            return await tasks.read(self.aws, str(manifest["task_definition"]))
        return await tasks.register(
            self.aws, release, self.environment, await self.outputs(), family=self.name
        )

    async def fetch(self, release: Release) -> None:
        """The image and its evidence are in the environment's own registry, where it has one."""
        if self.environment.registry is not None and self._copy is not None:
            await self._copy(release, self.environment.registry)

    def definition_arn(self, revision: str) -> str:
        """From "family:7" to the ARN."""
        return self.aws.arn("ecs", f"task-definition/{revision}")

    async def services(self, *names: str) -> dict[str, dict[str, Any]]:
        """The services that exist and are not being deleted, by name."""
        answer = await self.aws.call(
            "ecs",
            "DescribeServices",
            cluster=(await self.outputs())["Cluster"],
            services=list(names),
            include=["TAGS"],
        )
        found = {one["serviceName"]: one for one in answer["services"]}
        return {name: one for name, one in found.items() if one["status"] == "ACTIVE"}

    async def definition(
        self, outputs: Outputs, service: str, definition: TaskDefinition, group: str
    ) -> dict[str, Any]:
        """What `CreateService` is given, whoever moves the traffic."""
        return {
            "cluster": outputs["Cluster"],
            "serviceName": service,
            "taskDefinition": definition.arn,
            "desiredCount": self.environment.service.tasks,
            "launchType": "FARGATE",
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": list(outputs.listed("Subnets")),
                    "securityGroups": list(outputs.listed("SecurityGroups")),
                    "assignPublicIp": "DISABLED",
                }
            },
            "loadBalancers": [
                {
                    "targetGroupArn": group,
                    "containerName": tasks.CONTAINER,
                    "containerPort": self.environment.service.container_port,
                }
            ],
            "healthCheckGracePeriodSeconds": 60,
            "propagateTags": "TASK_DEFINITION",
            "enableECSManagedTags": True,
        }

    async def must_run(self, service: str, definition: TaskDefinition) -> None:
        """Every task of the service runs just the release's digest.

        Raises:
            WrongDigest: one does not.
        """
        wrong = await self.strangers(service, definition)
        if wrong:
            raise WrongDigest(
                f"tasks of {service} in {self.aws.where} run {', '.join(sorted(wrong))}, not "
                f"{definition.release.image.digest}",
                remedy="aws ecs describe-tasks shows what each runs",
            )

    async def strangers(self, service: str, definition: TaskDefinition) -> set[str]:
        """Digests of the definition's tasks that are not the release's."""
        cluster = (await self.outputs())["Cluster"]
        listed = await self.aws.call(
            "ecs", "ListTasks", cluster=cluster, serviceName=service, desiredStatus="RUNNING"
        )
        if not listed["taskArns"]:
            return set()
        answer = await self.aws.call(
            "ecs", "DescribeTasks", cluster=cluster, tasks=listed["taskArns"]
        )
        digests = {
            container.get("imageDigest", "no digest")
            for task in answer["tasks"]
            if task["taskDefinitionArn"] == definition.arn
            for container in task["containers"]
            if container["name"] == tasks.CONTAINER
        }
        return digests - {definition.release.image.digest}

    async def until(
        self, look: Callable[[], Awaitable[bool]], what: str, *, patience: float | None = None
    ) -> None:
        """Look again and again until it is so.

        Raises:
            NotHealthy: it was not so in time.
        """
        patience = self.patience if patience is None else patience
        began = self.aws.clock.monotonic()
        while not await look():
            if self.aws.clock.monotonic() - began > patience:
                raise NotHealthy(
                    f"{what} in {self.aws.where} did not come about within {patience:g} s",
                    remedy="aws ecs describe-services shows its events; `health_timeout` is how "
                    "long it may take",
                )
            await self.aws.clock.sleep(LOOK_AGAIN)

    async def rolled_out(self, service: str, definition: TaskDefinition) -> bool:
        """Whether ECS has brought the definition to all tasks of the service.

        Raises:
            DeploymentFailed: it gave up.
        """
        found = (await self.services(service)).get(service)
        if found is None:
            return False
        rows = [one for one in found["deployments"] if one["status"] in ("PRIMARY", "ACTIVE")]
        mine = next(
            (one for one in found["deployments"] if one["taskDefinition"] == definition.arn), None
        )
        if mine is None or mine.get("rolloutState") == "FAILED":
            reason = (mine or {}).get("rolloutStateReason") or "it went back by itself"
            raise DeploymentFailed(
                f"ECS gave up {definition.release.version} on {service}: {reason}",
                remedy=f"aws ecs describe-services --services {service} shows its events",
            )
        return bool(
            len(rows) == 1
            and mine["status"] == "PRIMARY"
            and mine.get("rolloutState") == "COMPLETED"
            and mine["runningCount"] == mine["desiredCount"] == found["desiredCount"]
        )

    async def deployed(self, entry: Entry, service: str, revision: str) -> Deployed:
        """What is served by a service, as `current` answers."""
        definition = await tasks.read(self.aws, self.definition_arn(revision))
        detail = await self._complaint(service, definition)
        release = definition.release
        return Deployed(
            version=release.version,
            revision=release.revision,
            digest=release.image.digest,
            started=entry.since,
            url=await self.url(),
            fingerprint=definition.fingerprint,
            rollout=entry.rollout,
            healthy=not detail,
            detail=detail,
            manifest=definition.manifest,
        )

    async def _complaint(self, service: str, definition: TaskDefinition) -> str:
        found = (await self.services(service)).get(service)
        if found is None:
            return f"the service {service} is gone"
        if found["runningCount"] < found["desiredCount"] or not found["desiredCount"]:
            return f"{found['runningCount']} of {found['desiredCount']} tasks run"
        wrong = await self.strangers(service, definition)
        return f"tasks run {', '.join(sorted(wrong))}" if wrong else ""

    async def delete_service(self, service: str) -> None:
        """Remove a service with its tasks; one that is gone is no error."""
        with suppress(AwsRefused):
            await self.aws.call(
                "ecs",
                "DeleteService",
                cluster=(await self.outputs())["Cluster"],
                service=service,
                force=True,
            )
