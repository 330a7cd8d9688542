"""A release as an ECS task definition: the image by digest, and all that it is configured with.

The definition's tags hold the release, so that an account can tell what it runs without a ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.aws.errors import AwsRefused
from buildonce.delivery.aws.outputs import Outputs
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.errors import ManifestLost
from buildonce.delivery.target import Manifest
from buildonce.release import Image, Release

CONTAINER = "app"
_TAG = "buildonce:"


def deployed_image(release: Release, environment: EnvironmentConfig) -> Image:
    """The release's image where this environment takes it from."""
    return Image(environment.registry or release.image.repository, release.image.digest)


def variables(release: Release, environment: EnvironmentConfig) -> dict[str, str]:
    """The environment variables of the container, without those that come from a reference."""
    return {
        **environment.configuration,
        "BUILDONCE_ENVIRONMENT": environment.name,
        "BUILDONCE_VERSION": release.version,
        "BUILDONCE_REVISION": release.revision,
        "BUILDONCE_DIGEST": release.image.digest,
    }


def secret_arns(aws: AwsSession, environment: EnvironmentConfig) -> dict[str, str]:
    """The references to secrets as ARNs of this account and region."""
    arns: dict[str, str] = {}
    for name, reference in environment.secrets.items():
        if reference.startswith("ssm:"):
            reference = aws.arn("ssm", f"parameter{reference.removeprefix('ssm:')}")
        elif reference.startswith("secretsmanager:"):
            reference = aws.arn("secretsmanager", f"secret:{reference.partition(':')[2]}")
        arns[name] = reference
    return arns


def fingerprint(
    release: Release, environment: EnvironmentConfig, manifest: Manifest | None = None
) -> str:
    """Digest of all that the release is started with."""
    if manifest is not None and "fingerprint" in manifest:
        return str(manifest["fingerprint"])
    content = [
        deployed_image(release, environment).reference,
        variables(release, environment),
        dict(environment.secrets),
        (environment.service if environment.target == "ecs" else environment.function).model_dump(
            mode="json"
        ),
    ]
    canonical = json.dumps(content, sort_keys=True).encode()
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


@dataclass(frozen=True)
class TaskDefinition:
    """A registered revision, and the release that it runs."""

    arn: str
    release: Release
    fingerprint: str

    @property
    def manifest(self) -> Manifest:
        """By which it is found again."""
        return {"task_definition": self.arn, "fingerprint": self.fingerprint}


async def register(
    aws: AwsSession,
    release: Release,
    environment: EnvironmentConfig,
    outputs: Outputs,
    *,
    family: str,
) -> TaskDefinition:
    """Register a revision for the release as the environment is configured now."""
    service = environment.service
    mark = fingerprint(release, environment)
    container = {
        "name": CONTAINER,
        "image": deployed_image(release, environment).reference,
        "essential": True,
        "portMappings": [{"containerPort": service.container_port, "protocol": "tcp"}],
        "environment": [
            {"name": name, "value": value}
            for name, value in sorted(variables(release, environment).items())
        ],
        "secrets": [
            {"name": name, "valueFrom": arn}
            for name, arn in sorted(secret_arns(aws, environment).items())
        ],
        "linuxParameters": {"initProcessEnabled": True},
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": outputs["LogGroup"],
                "awslogs-region": aws.region,
                "awslogs-stream-prefix": release.image.short,
            },
        },
    }
    answer = await aws.call(
        "ecs",
        "RegisterTaskDefinition",
        family=family,
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu=str(service.cpu),
        memory=str(service.memory),
        executionRoleArn=outputs["ExecutionRole"],
        taskRoleArn=outputs["TaskRole"],
        containerDefinitions=[container],
        tags=_tags({**release.to_json(), "fingerprint": mark}),
    )
    arn = aws.must_be_here(answer["taskDefinition"]["taskDefinitionArn"], "the task definition")
    return TaskDefinition(arn, release, mark)


async def read(aws: AwsSession, arn: str) -> TaskDefinition:
    """What a revision runs.

    Raises:
        ManifestLost: it is gone, was deregistered, or is not one of ours.
    """
    lost = f"the task definition {arn} of an earlier deployment"
    remedy = "buildonce deploy ENV --release VERSION deploys it as configured now"
    try:
        answer = await aws.call(
            "ecs", "DescribeTaskDefinition", taskDefinition=arn, include=["TAGS"]
        )
    except AwsRefused as error:
        if error.code == "ClientException":
            raise ManifestLost(f"{lost} is gone: {error.reason}", remedy=remedy) from error
        raise
    if answer["taskDefinition"].get("status", "ACTIVE") != "ACTIVE":
        raise ManifestLost(f"{lost} was deregistered", remedy=remedy)
    tags = untagged(answer.get("tags", []))
    try:
        release = Release.from_json(dict(tags))
        image = answer["taskDefinition"]["containerDefinitions"][0]["image"]
        if Image.from_reference(image).digest != release.image.digest:
            raise ValueError(f"its image is {image}")
        return TaskDefinition(arn, release, tags["fingerprint"])
    except (KeyError, IndexError, ValueError) as error:
        raise ManifestLost(f"{lost} is not what it was: {error}", remedy=remedy) from error


def _tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": f"{_TAG}{key}", "value": value} for key, value in sorted(values.items())]


def untagged(tags: list[dict[str, Any]]) -> dict[str, str]:
    """Our tags by their names without the prefix; ECS and the load balancer spell them apart."""
    pairs = ((t.get("key", t.get("Key", "")), t.get("value", t.get("Value", ""))) for t in tags)
    return {key.removeprefix(_TAG): value for key, value in pairs if key.startswith(_TAG)}
