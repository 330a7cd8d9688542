"""ECS that moves: services whose deployments go on by the test's clock.

Rolling with circuit breaker, blue/green, linear and canary with their stages, pauses, bake and
alarms, and tasks that start, become healthy, fail to be pulled, or crash.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .clock import BEGIN
from .wire import Call, ServiceError

if TYPE_CHECKING:
    from .place import Place

_START, _HEALTHY, _DRAIN = 10, 20, 10  # seconds that a task takes to each
_BREAKER = 3  # failed tasks, the least that ECS waits for
_HOOKS = {"PENDING": False}
_NATIVE = ("BLUE_GREEN", "LINEAR", "CANARY")
_DIGEST = re.compile(r".+@(sha256:[0-9a-f]{64})$")

Script = Generator[float, None, None]
"""What a deployment does: yields the seconds until it goes on."""


class GoBack(Exception):
    """A deployment is to be taken back, and why."""


@dataclass
class Definition:
    arn: str
    data: dict[str, Any]
    tags: list[dict[str, str]]
    status: str = "ACTIVE"

    @property
    def image(self) -> str:
        return str(self.data["containerDefinitions"][0]["image"])


@dataclass
class Revision:
    """A service revision: a definition under a service's configuration, and its tasks."""

    arn: str
    definition: Definition
    created: datetime
    balancers: list[dict[str, Any]]
    running: int = 0
    healthy: int = 0
    weight: float = 0.0
    group: str | None = None


@dataclass
class Deployment:
    arn: str
    target: Revision
    source: Revision | None
    configuration: dict[str, Any]
    created: datetime
    status: str = "PENDING"
    stage: str | None = None
    reason: str = ""
    failed: int = 0
    hook: str | None = None
    hook_until: float = 0.0
    going_on: bool = False
    stop: str | None = None
    wake: float = 0.0
    script: Script | None = None

    @property
    def over(self) -> bool:
        return self.status in ("SUCCESSFUL", "ROLLBACK_SUCCESSFUL", "STOPPED", "ROLLBACK_FAILED")


@dataclass
class Service:
    name: str
    arn: str
    cluster: str
    desired: int
    data: dict[str, Any]
    tags: dict[str, str]
    created: datetime
    status: str = "ACTIVE"
    definition: Definition | None = None
    revisions: dict[str, Revision] = field(default_factory=dict)
    deployments: list[Deployment] = field(default_factory=list)
    serving: Revision | None = None
    events: list[str] = field(default_factory=list)


class Ecs:
    """The ECS of one account and region."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.definitions: dict[str, Definition] = {}
        self.services: dict[str, Service] = {}
        self.tokens: dict[str, str] = {}
        self.numbers = 0

    # What a test can do to it.

    def serving(self, service: str) -> dict[str, float]:
        """Share of the service's own traffic by image digest."""
        found = self.services.get(service)
        shares: dict[str, float] = {}
        if found is None or found.status != "ACTIVE":
            return shares
        for revision in found.revisions.values():
            if revision.weight and revision.healthy:
                digest = self.digest(revision.definition)
                shares[digest] = shares.get(digest, 0.0) + revision.weight
        return shares

    def digest(self, definition: Definition) -> str:
        """What a task of the definition really runs."""
        match = _DIGEST.match(definition.image)
        assert match is not None, f"not by digest: {definition.image}"
        return self.place.lies_about_digest or match.group(1)

    def variables(self, digest: str) -> dict[str, str]:
        """The environment variables of the newest definition that runs this digest."""
        found: dict[str, str] = {}
        for definition in self.definitions.values():
            if self.digest(definition) == digest:
                given = definition.data["containerDefinitions"][0].get("environment", ())
                found = {one["name"]: one["value"] for one in given}
        return found

    def lose_tasks(self, service: str) -> None:
        """All tasks of a service's present revision die and do not come back."""
        found = self.services[service]
        for revision in found.revisions.values():
            revision.running = revision.healthy = 0

    # Time.

    def advance(self) -> None:
        """Do all that was due until now."""
        now = self.place.clock.monotonic()
        for service in self.services.values():
            if service.deployments and not service.deployments[-1].over:
                self._run(service, service.deployments[-1], now)

    def _run(self, service: Service, one: Deployment, now: float) -> None:
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

    def _script(self, service: Service, one: Deployment) -> Script:
        strategy = one.configuration.get("strategy", "ROLLING")
        try:
            yield 1
            one.status = "IN_PROGRESS"
            if strategy in _NATIVE and one.source is not None:
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
            self._gone(one.target)
            one.status = "ROLLBACK_SUCCESSFUL"

    def _back(self, service: Service, one: Deployment) -> None:
        one.target.weight = 0.0
        if one.source is not None:
            one.source.weight = 100.0
            one.source.running = one.source.healthy = service.desired
            service.definition = one.source.definition
            service.serving = one.source

    @staticmethod
    def _gone(revision: Revision) -> None:
        revision.running = revision.healthy = 0
        revision.weight = 0.0

    def _rolled(self, service: Service, one: Deployment) -> Script:
        yield from self._started(service, one)
        if one.source is not None:
            one.source.weight = 0.0
        one.target.weight = 100.0
        yield _DRAIN
        if one.source is not None and one.source is not one.target:
            self._gone(one.source)

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
            self._gone(one.source)

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

    # Operations.

    def RegisterTaskDefinition(self, call: Call) -> dict[str, Any]:
        p = dict(call.parameters)
        tags = p.pop("tags", [])
        for container in p["containerDefinitions"]:
            if not _DIGEST.match(container["image"]):
                raise AssertionError(f"an image that is not named by digest: {container['image']}")
        number = 1 + sum(d.data["family"] == p["family"] for d in self.definitions.values())
        arn = self.place.arn("ecs", f"task-definition/{p['family']}:{number}")
        data = {**p, "taskDefinitionArn": arn, "revision": number, "status": "ACTIVE"}
        self.definitions[arn] = Definition(arn, data, tags)
        return {"taskDefinition": data, "tags": tags}

    def DescribeTaskDefinition(self, call: Call) -> dict[str, Any]:
        found = self._definition(call.parameters["taskDefinition"], describe=True)
        answer: dict[str, Any] = {"taskDefinition": {**found.data, "status": found.status}}
        if "TAGS" in call.parameters.get("include", ()):
            answer["tags"] = found.tags
        return answer

    def CreateService(self, call: Call) -> dict[str, Any]:
        p = dict(call.parameters)
        name = p["serviceName"]
        known = self.services.get(name)
        if known is not None and known.status == "ACTIVE":
            if p.get("clientToken") and self.tokens.get(p["clientToken"]) == name:
                return {"service": self._described(known, tags=True)}
            raise ServiceError(
                "InvalidParameterException", "Creation of service was not idempotent."
            )
        self._must_exist(p)
        cluster = str(p["cluster"]).rpartition("/")[2]
        tags = {tag["key"]: tag["value"] for tag in p.pop("tags", [])}
        service = Service(
            name,
            self.place.arn("ecs", f"service/{cluster}/{name}"),
            self.place.arn("ecs", f"cluster/{cluster}"),
            p["desiredCount"],
            p,
            tags,
            self.place.clock.now(),
        )
        self.services[name] = service
        if p.get("clientToken"):
            self.tokens[p["clientToken"]] = name
        self._deploy(service, self._definition(p["taskDefinition"]))
        return {"service": self._described(service, tags=True)}

    def UpdateService(self, call: Call) -> dict[str, Any]:
        p = dict(call.parameters)
        service = self._service(p["service"])
        for key in ("deploymentConfiguration", "loadBalancers", "networkConfiguration"):
            if key in p:
                service.data[key] = p[key]
        if p.get("deploymentConfiguration", {}).get("strategy") in _NATIVE:
            self._must_be_native(service.data)
        changed = "desiredCount" in p and p["desiredCount"] != service.desired
        if changed:
            service.desired = p["desiredCount"]
        definition = service.definition
        if "taskDefinition" in p:
            definition = self._definition(p["taskDefinition"])
        assert definition is not None
        going = service.deployments and not service.deployments[-1].over
        if definition is not service.definition or p.get("forceNewDeployment"):
            self._deploy(service, definition)
        elif changed and service.serving is not None and not going:
            service.serving.running = service.serving.healthy = service.desired
        elif changed and service.desired and not going:
            self._deploy(service, definition)
        elif changed and going:
            service.deployments[-1].target.running = min(
                service.deployments[-1].target.running, service.desired
            )
            if not service.desired:  # nothing is to run: there is nothing left to deploy
                service.deployments[-1].status = "STOPPED"
                service.serving = None
                self._gone(service.deployments[-1].target)
        return {"service": self._described(service, tags=True)}

    def DeleteService(self, call: Call) -> dict[str, Any]:
        service = self._service(call.parameters["service"])
        if service.desired and not call.parameters.get("force"):
            raise ServiceError(
                "InvalidParameterException", "The service cannot be stopped while it is scaled up."
            )
        service.status, service.desired = "INACTIVE", 0
        for revision in service.revisions.values():
            self._gone(revision)
        for one in service.deployments:
            if not one.over:
                one.status = "STOPPED"
        return {"service": self._described(service)}

    def DescribeServices(self, call: Call) -> dict[str, Any]:
        found, missing = [], []
        for name in call.parameters["services"]:
            service = self.services.get(str(name).rpartition("/")[2])
            if service is None:
                arn = self.place.arn("ecs", f"service/{name}")
                missing.append({"arn": arn, "reason": "MISSING"})
            else:
                tags = "TAGS" in call.parameters.get("include", ())
                found.append(self._described(service, tags=tags))
        return {"services": found, "failures": missing}

    def TagResource(self, call: Call) -> dict[str, Any]:
        arn = call.parameters["resourceArn"]
        for service in self.services.values():
            if service.arn == arn and service.status == "ACTIVE":
                service.tags.update({t["key"]: t["value"] for t in call.parameters["tags"]})
                return {}
        raise ServiceError(
            "InvalidParameterException", f"The specified resource is not there: {arn}"
        )

    def ListTasks(self, call: Call) -> dict[str, Any]:
        service = self._service(call.parameters["serviceName"])
        arns = [
            self.place.arn("ecs", f"task/{service.cluster.rpartition('/')[2]}/{number}.{index}")
            for number, revision in enumerate(service.revisions.values())
            for index in range(revision.running)
        ]
        if not call.parameters["serviceName"]:
            raise ServiceError("ClientException", "which service?")
        return {"taskArns": [f"{arn}.{service.name}" for arn in arns]}

    def DescribeTasks(self, call: Call) -> dict[str, Any]:
        tasks = []
        for arn in call.parameters["tasks"]:
            number, _, name = arn.rpartition("/")[2].split(".", 2)
            revision = list(self.services[name].revisions.values())[int(number)]
            tasks.append(
                {
                    "taskArn": arn,
                    "taskDefinitionArn": revision.definition.arn,
                    "lastStatus": "RUNNING",
                    "desiredStatus": "RUNNING",
                    "healthStatus": "UNKNOWN",
                    "containers": [
                        {
                            "name": revision.definition.data["containerDefinitions"][0]["name"],
                            "image": revision.definition.image,
                            "imageDigest": self.digest(revision.definition),
                            "lastStatus": "RUNNING",
                        }
                    ],
                }
            )
        return {"tasks": tasks, "failures": []}

    def ListServiceDeployments(self, call: Call) -> dict[str, Any]:
        service = self._service(call.parameters["service"])
        brief = [
            {
                "serviceDeploymentArn": one.arn,
                "serviceArn": service.arn,
                "clusterArn": service.cluster,
                "createdAt": one.created,
                "targetServiceRevisionArn": one.target.arn,
                "status": one.status,
            }
            for one in reversed(service.deployments)
        ]
        return {"serviceDeployments": brief}

    def DescribeServiceRevisions(self, call: Call) -> dict[str, Any]:
        found = [
            {
                "serviceRevisionArn": revision.arn,
                "serviceArn": service.arn,
                "clusterArn": service.cluster,
                "taskDefinition": revision.definition.arn,
                "createdAt": revision.created,
            }
            for service in self.services.values()
            for revision in service.revisions.values()
            if revision.arn in call.parameters["serviceRevisionArns"]
        ]
        return {"serviceRevisions": found, "failures": []}

    def DescribeServiceDeployments(self, call: Call) -> dict[str, Any]:
        found = [
            self._deployment(service, one)
            for service in self.services.values()
            for one in service.deployments
            if one.arn in call.parameters["serviceDeploymentArns"]
        ]
        return {"serviceDeployments": found, "failures": []}

    def ContinueServiceDeployment(self, call: Call) -> dict[str, Any]:
        one = self._going(call.parameters["serviceDeploymentArn"])
        if one.hook is None or one.hook != call.parameters["hookId"]:
            raise ServiceError("ClientException", "The deployment is not paused at that hook.")
        if call.parameters.get("action", "CONTINUE") == "ROLLBACK":
            one.stop = "rolled back at a lifecycle hook"
        else:
            one.going_on, one.wake = True, self.place.clock.monotonic()
        return {"serviceDeploymentArn": one.arn}

    def StopServiceDeployment(self, call: Call) -> dict[str, Any]:
        one = self._going(call.parameters["serviceDeploymentArn"])
        if call.parameters.get("stopType", "ROLLBACK") == "ABORT":
            one.status = "STOPPED"
        else:
            one.stop = "stopped by a user"
        return {"serviceDeploymentArn": one.arn}

    # Parts.

    def _going(self, arn: str) -> Deployment:
        for service in self.services.values():
            for one in service.deployments:
                if one.arn == arn:
                    if one.over or one.stop:
                        raise ServiceError(
                            "ConflictException", "The deployment is not in progress."
                        )
                    return one
        raise ServiceError("ServiceDeploymentNotFoundException", f"There is no {arn}")

    def _deploy(self, service: Service, definition: Definition) -> None:
        for one in service.deployments:
            if not one.over:  # a newer one takes the place of what was going on
                one.status = "STOPPED"
                if one.target is not service.serving:
                    self._gone(one.target)
                if service.serving is not None:
                    service.serving.weight = 100.0
        self.numbers += 1
        now = self.place.clock.now() + timedelta(microseconds=self.numbers)
        tail = f"{service.arn.partition('service/')[2]}/{self.numbers:020d}"
        revision = Revision(
            self.place.arn("ecs", f"service-revision/{tail}"),
            definition,
            now,
            service.data.get("loadBalancers", []),
        )
        service.revisions[revision.arn] = revision
        service.definition = definition
        one = Deployment(
            self.place.arn("ecs", f"service-deployment/{tail}"),
            revision,
            service.serving,
            dict(service.data.get("deploymentConfiguration", {})),
            now,
            wake=self.place.clock.monotonic(),
        )
        one.script = self._script(service, one)
        service.deployments.append(one)

    def _definition(self, name: str, *, describe: bool = False) -> Definition:
        arn = name if name.startswith("arn:") else self.place.arn("ecs", f"task-definition/{name}")
        found = self.definitions.get(arn)
        if found is None or (found.status != "ACTIVE" and not describe):
            raise ServiceError("ClientException", "Unable to describe task definition.")
        return found

    def _service(self, name: str) -> Service:
        found = self.services.get(str(name).rpartition("/")[2])
        if found is None or found.status != "ACTIVE":
            raise ServiceError("ServiceNotFoundException", "Service not found.")
        return found

    def _must_exist(self, p: Mapping[str, Any]) -> None:
        cluster = str(p["cluster"]).rpartition("/")[2]
        if cluster not in self.place.clusters:
            raise ServiceError("ClusterNotFoundException", "Cluster not found.")
        for balancer in p.get("loadBalancers", ()):
            if balancer["targetGroupArn"] not in self.place.balancer.groups:
                raise ServiceError("InvalidParameterException", "The target group does not exist.")
        self._definition(p["taskDefinition"])
        if p.get("deploymentConfiguration", {}).get("strategy") in _NATIVE:
            self._must_be_native(p)

    def _must_be_native(self, p: Mapping[str, Any]) -> None:
        for balancer in p.get("loadBalancers", ()):
            more = balancer.get("advancedConfiguration", {})
            if not {"alternateTargetGroupArn", "productionListenerRule", "roleArn"} <= set(more):
                raise ServiceError(
                    "InvalidParameterException",
                    "advancedConfiguration is required for this deployment strategy.",
                )
        configuration = p["deploymentConfiguration"]
        if "bakeTimeInMinutes" not in configuration:
            raise ServiceError("InvalidParameterException", "bakeTimeInMinutes is required.")

    def _described(self, service: Service, *, tags: bool = False) -> dict[str, Any]:
        assert service.definition is not None
        shown: dict[str, Any] = {
            "serviceArn": service.arn,
            "serviceName": service.name,
            "clusterArn": service.cluster,
            "status": service.status,
            "desiredCount": service.desired,
            "runningCount": min(sum(r.running for r in service.revisions.values()), 10**6),
            "pendingCount": 0,
            "taskDefinition": service.definition.arn,
            "loadBalancers": service.data.get("loadBalancers", []),
            "deploymentConfiguration": service.data.get("deploymentConfiguration", {}),
            "deployments": self._rows(service),
            "events": [
                {"id": str(i), "createdAt": service.created, "message": text}
                for i, text in enumerate(service.events[:5])
            ],
            "createdAt": service.created,
        }
        going = [one for one in service.deployments if not one.over]
        if going:
            shown["currentServiceDeployment"] = going[-1].arn
        if tags:
            shown["tags"] = [{"key": k, "value": v} for k, v in sorted(service.tags.items())]
        return shown

    def _rows(self, service: Service) -> list[dict[str, Any]]:
        """The older view: a PRIMARY deployment and what it replaces."""
        if not service.deployments or service.status != "ACTIVE":
            return []
        newest = service.deployments[-1]
        went_back = newest.status.startswith("ROLLBACK") and newest.source is not None
        shown = newest.source if went_back and newest.source is not None else newest.target
        failed = newest.status in ("STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_IN_PROGRESS")
        rows = [
            _row(
                "PRIMARY",
                shown,
                service.desired,
                "COMPLETED"
                if newest.over and (newest.status == "SUCCESSFUL" or went_back)
                else "FAILED"
                if failed and not went_back
                else "IN_PROGRESS",
                newest.reason,
            )
        ]
        for revision in service.revisions.values():
            if revision is not shown and revision.running:
                rows.append(_row("ACTIVE", revision, revision.running, "COMPLETED", ""))
            elif revision is newest.target and went_back:
                rows.append(_row("INACTIVE", revision, 0, "FAILED", newest.reason))
        return rows

    def _deployment(self, service: Service, one: Deployment) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "serviceDeploymentArn": one.arn,
            "serviceArn": service.arn,
            "clusterArn": service.cluster,
            "createdAt": one.created,
            "status": one.status,
            "statusReason": one.reason,
            "targetServiceRevision": _summary(one.target, service.desired),
            "sourceServiceRevisions": [_summary(one.source, service.desired)] if one.source else [],
            "deploymentConfiguration": one.configuration,
        }
        if one.stage is not None:
            shown["lifecycleStage"] = one.stage
        if one.hook is not None and not one.going_on:
            shown["lifecycleHookDetails"] = [
                {
                    "hookId": one.hook,
                    "targetType": "PAUSE",
                    "status": "AWAITING_ACTION",
                    "expiresAt": BEGIN + timedelta(seconds=one.hook_until),
                    "timeoutAction": "ROLLBACK",
                }
            ]
        return shown


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


def _row(status: str, revision: Revision, desired: int, state: str, reason: str) -> dict[str, Any]:
    return {
        "id": f"ecs-svc/{revision.arn.rpartition('/')[2]}",
        "status": status,
        "taskDefinition": revision.definition.arn,
        "desiredCount": desired,
        "runningCount": revision.running,
        "pendingCount": 0,
        "failedTasks": 0,
        "rolloutState": state,
        "rolloutStateReason": reason,
    }


def _summary(revision: Revision, desired: int) -> dict[str, Any]:
    return {
        "arn": revision.arn,
        "requestedTaskCount": desired,
        "runningTaskCount": revision.running,
        "pendingTaskCount": 0,
        "requestedTestTrafficWeight": 0.0,
        "requestedProductionTrafficWeight": revision.weight,
    }
