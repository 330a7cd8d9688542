"""What every way of deploying to ECS has in common: the stack, tasks and their health, waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.errors import AwsRefused, DeploymentFailed
from buildonce.delivery.aws.outputs import Outputs
from buildonce.delivery.aws.pointer import Entry
from buildonce.delivery.aws.target import AwsTarget
from buildonce.delivery.aws.tasks import TaskDefinition
from buildonce.delivery.errors import WrongDigest
from buildonce.delivery.target import Deployed, Manifest, Step
from buildonce.release import Release

_PATIENCE = timedelta(minutes=15)
_OURS = "health_timeout"


class EcsTarget(AwsTarget):
    """An environment on ECS; see its two kinds."""

    @property
    def patience(self) -> float:
        """Seconds that tasks get to become healthy."""
        given = _OURS in self.environment.model_fields_set
        return (self.environment.health_timeout if given else _PATIENCE).total_seconds()

    @property
    def back_within(self) -> float:
        return 2 * self.patience

    async def define(
        self, release: Release, step: Step, manifest: Manifest | None
    ) -> TaskDefinition:
        """The task definition to deploy: a new one, or just the one that ran then."""
        await self.fetch(release, step)
        async with step("register", family=self.name) as data:
            if manifest:
                found = await tasks.read(self.aws, str(manifest["task_definition"]))
            else:
                outputs = await self.outputs()
                found = await tasks.register(
                    self.aws, release, self.environment, outputs, family=self.name
                )
            data["task_definition"] = found.arn
        return found

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

    async def wait_for(
        self, look: Callable[[], Awaitable[bool]], what: str, *, patience: float | None = None
    ) -> None:
        """Wait until ECS has done it; see `until`."""
        await self.until(
            look,
            what,
            patience=self.patience if patience is None else patience,
            remedy="aws ecs describe-services shows its events; `health_timeout` is how long it "
            "may take",
        )

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
