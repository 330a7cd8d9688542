"""Where an image comes from: SLSA provenance v1, from what the pipeline knows of its own run.

    statement = provenance(build)              # to be attested beside the rest of the evidence

What decided the content is in `buildDefinition`: source, base images by digest, parameters,
configuration. What is of this one run only, its id and times, is in `runDetails.metadata`.

https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from buildonce import predicates
from buildonce.release.envelopes import Statement
from buildonce.release.models import Image
from buildonce.release.source import Origin, Revision

BUILD_TYPE: Final = "urn:buildonce:pipeline:v1"
LOCAL_BUILDER: Final = "urn:buildonce:builder:machine"


@dataclass(frozen=True)
class Build:
    """What is known of a build.

    Args:
        pipeline: the project's name.
        revision: what was built.
        origin: where its source is kept.
        configuration: `Config.digest`.
        run: id of the run.
        started: when the run began (UTC).
        bases: images that the build began from, by the name the configuration gives them:
            {"python": "registry/python:3.12@sha256:…"}.
        parameters: what else was given from outside: profile, platforms.
        builder: who built; `builder_id()` by default.
    """

    pipeline: str
    revision: Revision
    origin: Origin
    configuration: str
    run: str
    started: datetime
    bases: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    builder: str = ""


def provenance(build: Build, *, finished: datetime | None = None) -> Statement:
    """The provenance of an image.

    Raises:
        ValueError: a base image has no digest.
    """
    finished = finished or datetime.now(UTC)
    source = _source(build)
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "pipeline": build.pipeline,
                "source": {key: source[key] for key in ("uri", "digest") if key in source},
                "configuration": build.configuration,
                **build.parameters,
            },
            "internalParameters": {},
            "resolvedDependencies": [source, *(_base(*item) for item in build.bases.items())],
        },
        "runDetails": {
            "builder": {"id": build.builder or builder_id(), "version": _versions()},
            "metadata": {
                "invocationId": build.run,
                "startedOn": _rfc3339(build.started),
                "finishedOn": _rfc3339(finished),
            },
        },
    }
    return Statement(predicates.SLSA_PROVENANCE, predicate, "provenance", finished)


def builder_id() -> str:
    """Which kind of machine builds: what the CI vendor says of itself, else this machine.

    It is the builder's own word, as good as the key that signs it: give that key to no other.
    """
    given = os.environ.get
    if own := given("BUILDONCE_BUILDER"):
        return own
    if given("GITHUB_ACTIONS") == "true":
        return f"https://github.com/actions/runner/{given('RUNNER_ENVIRONMENT', 'self-hosted')}"
    if given("GITLAB_CI") == "true":
        return f"{given('CI_SERVER_URL', 'https://gitlab.com')}/-/runners/{given('CI_RUNNER_ID')}"
    if arn := given("CODEBUILD_BUILD_ARN"):
        return "https://aws.amazon.com/codebuild/" + arn.rpartition("/")[2].partition(":")[0]
    if given("BITBUCKET_BUILD_NUMBER"):
        return "https://bitbucket.org/product/features/pipelines"
    return LOCAL_BUILDER


def _source(build: Build) -> dict[str, Any]:
    origin, revision = build.origin, build.revision
    source: dict[str, Any] = {
        "name": "source",
        "digest": {"gitCommit": revision.commit},
        "annotations": {"dirty": revision.dirty, "version": revision.version},
    }
    if origin.address:
        source["uri"] = f"git+{origin.address}" + (
            f"@refs/heads/{origin.branch}" if origin.branch else ""
        )
    return source


def _base(name: str, reference: str) -> dict[str, Any]:
    image = Image.from_reference(reference)
    return {
        "name": name,
        "uri": f"oci://{reference.partition('@')[0]}",
        "digest": {"sha256": image.digest.removeprefix("sha256:")},
    }


def _versions() -> dict[str, str]:
    try:
        return {"buildonce": version("buildonce")}
    except PackageNotFoundError:
        return {}


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
