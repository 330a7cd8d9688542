"""ECS with traffic of our own: two services behind one weighted rule of a load balancer.

Slot a or b is a service and its target group. The candidate gets the slot that does not serve, the
rule's weights move requests, and the retired slot is scaled to nothing. What serves is written in
the rule's tags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.ecs import EcsTarget
from buildonce.delivery.aws.pointer import Entry, Pointer
from buildonce.delivery.aws.tasks import TaskDefinition
from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.target import Candidate, Deployed, Manifest, Step
from buildonce.release import Release

_GROUPS = {"a": "TargetGroupA", "b": "TargetGroupB"}


class WeightedEcsTarget(EcsTarget):
    """A `Target` on ECS whose traffic buildonce moves."""

    async def current(self) -> Deployed | None:
        active = (await self._pointer()).active
        if active is None:
            return None
        return await self.deployed(active, self._service(active.id), active.detail)

    async def pending(self) -> Candidate | None:
        entry = (await self._pointer()).candidate
        if entry is None:
            return None
        definition = await tasks.read(self.aws, self.definition_arn(entry.detail))
        percent = (await self._weights())[entry.id]
        return _candidate(entry, definition, percent)

    async def repair(self, say: Callable[[str], None]) -> None:
        pointer = await self._pointer()
        running = await self.services(*map(self._service, _GROUPS))
        kept = {entry.id for entry in (pointer.active, pointer.candidate) if entry is not None}
        for slot in _GROUPS:
            service = running.get(self._service(slot))
            if service is None:
                continue
            if slot not in kept and service["desiredCount"]:
                await self._scale(slot, 0)
            elif slot in kept and not service["desiredCount"]:
                say(f"{self.environment.name}: {self._service(slot)} had no tasks; starting them")
                await self._scale(slot, self.environment.service.tasks)
        active = pointer.active
        alone = active is not None and pointer.candidate is None
        if active is not None and alone and (await self._weights())[active.id] != 100:
            await self._forward(active.id, 100)

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        definition = await self.define(release, step, manifest)
        outputs = await self.outputs()
        pointer = await self._pointer()
        slot = next(s for s in _GROUPS if pointer.active is None or s != pointer.active.id)
        service = self._service(slot)
        entry = Entry(slot, rollout, self.aws.clock.now(), definition.arn.rpartition("/")[2])
        # Before anything runs: a crash from here on leaves something that is known.
        await self._write(replace(pointer, candidate=entry))
        async with step("start", container=service):
            if service in await self.services(service):
                await self.aws.call(
                    "ecs",
                    "UpdateService",
                    cluster=outputs["Cluster"],
                    service=service,
                    taskDefinition=definition.arn,
                    desiredCount=self.environment.service.tasks,
                    deploymentConfiguration=_ROLLING,
                )
            else:
                await self.aws.call(
                    "ecs",
                    "CreateService",
                    **await self.definition(outputs, service, definition, outputs[_GROUPS[slot]]),
                    deploymentConfiguration=_ROLLING,
                    clientToken=rollout[:36],
                )
        async with step("healthy", path=self.environment.health_path):
            await self.wait_for(
                lambda: self.rolled_out(service, definition), f"{release.version} on {service}"
            )
            await self.must_run(service, definition)
            await self.wait_for(lambda: self._answers(slot), f"health of {service}'s targets")
        return _candidate(entry, definition, 0)

    async def shift(self, candidate: Candidate, percent: int) -> None:
        (await self._pointer()).fenced(self.fence, self.environment.name)
        await self._forward(candidate.id, percent)

    async def finish(self, candidate: Candidate) -> None:
        pointer = await self._pointer()
        previous = pointer.active
        if pointer.candidate is not None and pointer.candidate.id == candidate.id:
            await self._write(pointer.finished())
        retired = previous.id if previous is not None else _other(candidate.id)
        if retired != candidate.id and self._service(retired) in await self.services(
            self._service(retired)
        ):
            await self._scale(retired, 0)

    async def restore(self, candidate: Candidate, why: str) -> None:
        pointer = await self._pointer()
        if pointer.candidate is None or pointer.candidate.id != candidate.id:
            return
        pointer.fenced(self.fence, self.environment.name)
        service = self._service(candidate.id)
        if pointer.active is not None:
            await self._forward(pointer.active.id, 100)
            if service in await self.services(service):
                await self._scale(candidate.id, 0)
        else:
            # Nothing ran here before: nothing shall run now.
            await self._forward(_other(candidate.id), 100)
            await self.delete_service(service)
        await self._write(pointer.without_candidate())

    async def down(self) -> None:
        for slot in _GROUPS:
            await self.delete_service(self._service(slot))
        await self._write(Pointer(fence=self.fence))

    def _service(self, slot: str) -> str:
        return f"{self.name}-{slot}"

    async def _answers(self, slot: str) -> bool:
        """Whether as many targets as there are tasks pass the load balancer's health check."""
        group = (await self.outputs())[_GROUPS[slot]]
        answer = await self.aws.call("elbv2", "DescribeTargetHealth", TargetGroupArn=group)
        states = [one["TargetHealth"]["State"] for one in answer["TargetHealthDescriptions"]]
        return states.count("healthy") >= self.environment.service.tasks

    async def _weights(self) -> dict[str, int]:
        outputs = await self.outputs()
        answer = await self.aws.call("elbv2", "DescribeRules", RuleArns=[outputs["ListenerRule"]])
        groups = [
            group
            for action in answer["Rules"][0]["Actions"]
            for group in action.get("ForwardConfig", {}).get("TargetGroups", [])
        ]
        by_arn = {group["TargetGroupArn"]: int(group.get("Weight", 0)) for group in groups}
        return {slot: by_arn.get(outputs[key], 0) for slot, key in _GROUPS.items()}

    async def _forward(self, slot: str, percent: int) -> None:
        outputs = await self.outputs()
        shares = {slot: percent, _other(slot): 100 - percent}
        await self.aws.call(
            "elbv2",
            "ModifyRule",
            RuleArn=outputs["ListenerRule"],
            Actions=[
                {
                    "Type": "forward",
                    "ForwardConfig": {
                        "TargetGroups": [
                            {"TargetGroupArn": outputs[_GROUPS[name]], "Weight": shares[name]}
                            for name in sorted(shares)
                        ]
                    },
                }
            ],
        )
        # An answer is a promise; what counts is what is read back.
        if (seen := await self._weights()) != shares:
            raise TargetFailed(
                f"the load balancer of {self.environment.name} took {shares} and has {seen}",
                remedy=f"buildonce resume {self.environment.name}",
            )

    async def _scale(self, slot: str, count: int) -> None:
        await self.aws.call(
            "ecs",
            "UpdateService",
            cluster=(await self.outputs())["Cluster"],
            service=self._service(slot),
            desiredCount=count,
        )

    async def _pointer(self) -> Pointer:
        rule = (await self.outputs())["ListenerRule"]
        answer = await self.aws.call("elbv2", "DescribeTags", ResourceArns=[rule])
        return Pointer.from_tags(tasks.untagged(answer["TagDescriptions"][0]["Tags"]))

    async def _write(self, pointer: Pointer) -> None:
        tags = pointer.fenced(self.fence, self.environment.name).to_tags()
        await self.aws.call(
            "elbv2",
            "AddTags",
            ResourceArns=[(await self.outputs())["ListenerRule"]],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )


# The slot has no traffic while ECS replaces its tasks: it may take all of them down at once.
_ROLLING = {
    "strategy": "ROLLING",
    "maximumPercent": 200,
    "minimumHealthyPercent": 0,
    "deploymentCircuitBreaker": {"enable": True, "rollback": False},
}


def _other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def _candidate(entry: Entry, definition: TaskDefinition, percent: int) -> Candidate:
    return Candidate(
        entry.id, entry.rollout, definition.release, percent, manifest=definition.manifest
    )
