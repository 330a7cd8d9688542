"""ECS that moves: services whose deployments go on by the test's clock (see `ecs_course`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .ecs_course import Course
from .ecs_state import DIGEST, NATIVE, Definition, Deployment, Revision, Service
from .ecs_views import deployment, described
from .wire import Call, ServiceError

if TYPE_CHECKING:
    from .place import Place


class Ecs:
    """The ECS of one account and region."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.course = Course(place)
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
        match = DIGEST.match(definition.image)
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
                self.course.go_on(service, service.deployments[-1], now)

    # Operations.

    def RegisterTaskDefinition(self, call: Call) -> dict[str, Any]:
        p = dict(call.parameters)
        tags = p.pop("tags", [])
        for container in p["containerDefinitions"]:
            if not DIGEST.match(container["image"]):
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
                return {"service": described(known, tags=True)}
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
        return {"service": described(service, tags=True)}

    def UpdateService(self, call: Call) -> dict[str, Any]:
        p = dict(call.parameters)
        service = self._service(p["service"])
        for key in ("deploymentConfiguration", "loadBalancers", "networkConfiguration"):
            if key in p:
                service.data[key] = p[key]
        if p.get("deploymentConfiguration", {}).get("strategy") in NATIVE:
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
                service.deployments[-1].target.gone()
        return {"service": described(service, tags=True)}

    def DeleteService(self, call: Call) -> dict[str, Any]:
        service = self._service(call.parameters["service"])
        if service.desired and not call.parameters.get("force"):
            raise ServiceError(
                "InvalidParameterException", "The service cannot be stopped while it is scaled up."
            )
        service.status, service.desired = "INACTIVE", 0
        for revision in service.revisions.values():
            revision.gone()
        for one in service.deployments:
            if not one.over:
                one.status = "STOPPED"
        return {"service": described(service)}

    def DescribeServices(self, call: Call) -> dict[str, Any]:
        found, missing = [], []
        for name in call.parameters["services"]:
            service = self.services.get(str(name).rpartition("/")[2])
            if service is None:
                arn = self.place.arn("ecs", f"service/{name}")
                missing.append({"arn": arn, "reason": "MISSING"})
            else:
                tags = "TAGS" in call.parameters.get("include", ())
                found.append(described(service, tags=tags))
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
            deployment(service, one)
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
                    one.target.gone()
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
        one.script = self.course.script(service, one)
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
        if p.get("deploymentConfiguration", {}).get("strategy") in NATIVE:
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
