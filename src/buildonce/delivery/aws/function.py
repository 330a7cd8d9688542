"""Lambda: a published version for each release, and an alias whose weights are the traffic.

What serves is written in the function's tags; the alias is what callers see. Every version
holds its release in its own variables, which AWS keeps as they were when it was published.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from buildonce.delivery.aws import tasks
from buildonce.delivery.aws.errors import AwsRefused, DeploymentFailed
from buildonce.delivery.aws.pointer import Entry, Pointer
from buildonce.delivery.aws.target import AwsTarget
from buildonce.delivery.errors import ManifestLost, TargetFailed, WrongDigest
from buildonce.delivery.lease import LeaseLost
from buildonce.delivery.target import Candidate, Deployed, Manifest, Step
from buildonce.release import Release

_PATIENCE = 600.0
_RELEASE = "BUILDONCE_RELEASE"
_FINGERPRINT = "BUILDONCE_FINGERPRINT"
_ROLLOUT = "BUILDONCE_ROLLOUT"


@dataclass(frozen=True)
class Version:
    """A published version, and the release that it runs."""

    number: str
    release: Release
    fingerprint: str
    rollout: str
    healthy: bool

    @property
    def manifest(self) -> Manifest:
        """By which it is found again."""
        return {"version": self.number, "fingerprint": self.fingerprint}


class LambdaTarget(AwsTarget):
    """A `Target` that is a function."""

    @property
    def alias(self) -> str:
        """The name that callers use."""
        return self.environment.function.alias

    async def current(self) -> Deployed | None:
        active = (await self._pointer()).active
        if active is None:
            return None
        version = await self._version(active.id)
        alias = await self._alias()
        detail = "" if version.healthy else f"version {version.number} is not active"
        if alias is None:
            detail = f"the alias {self.alias} is gone"
        return Deployed(
            version=version.release.version,
            revision=version.release.revision,
            digest=version.release.image.digest,
            started=active.since,
            url=await self.url(),
            fingerprint=version.fingerprint,
            rollout=active.rollout,
            healthy=not detail,
            detail=detail,
            manifest=version.manifest,
        )

    async def pending(self) -> Candidate | None:
        entry = (await self._pointer()).candidate
        if entry is None:
            return None
        version = await self._version(entry.id)
        return _candidate(entry, version, _share(await self._alias(), entry.id))

    async def repair(self, say: Callable[[str], None]) -> None:
        pointer = await self._pointer()
        if pointer.active is None or pointer.candidate is not None:
            return
        if _share(await self._alias(), pointer.active.id) != 100:
            say(f"{self.environment.name}: the alias {self.alias} is not as recorded; put back")
            await self._route(pointer.active.id, None, 0)

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        await self.fetch(release, step)
        pointer = (await self._pointer()).fenced(self.fence, self.environment.name)
        async with step("register", family=self.name) as data:
            if manifest:
                version = await self._version(str(manifest["version"]))
            else:
                await self._write_code(release, rollout)
                version = await self._publish(release, rollout)
            data["version"] = version.number
            entry = Entry(version.number, rollout, self.aws.clock.now())
            await self._write(replace(pointer, candidate=entry))
        async with step("healthy", path=f"version {version.number}"):
            await self._until_active(version.number)
            await self._must_run(version.number, release)
        return _candidate(entry, version, 0)

    async def shift(self, candidate: Candidate, percent: int) -> None:
        pointer = (await self._pointer()).fenced(self.fence, self.environment.name)
        active = pointer.active.id if pointer.active is not None else None
        await self._route(candidate.id, active, percent)

    async def finish(self, candidate: Candidate) -> None:
        pointer = await self._pointer()
        if pointer.candidate is not None and pointer.candidate.id == candidate.id:
            await self._route(candidate.id, None, 100)
            await self._write(pointer.finished())

    async def restore(self, candidate: Candidate, why: str) -> None:
        pointer = await self._pointer()
        if pointer.candidate is None or pointer.candidate.id != candidate.id:
            return
        pointer.fenced(self.fence, self.environment.name)
        alias = await self._alias()
        if pointer.active is not None and _share(alias, pointer.active.id) != 100:
            await self._route(pointer.active.id, None, 100)
        elif pointer.active is None and alias is not None:
            # Nothing ran here before: nothing shall run now.
            await self.aws.call("lambda", "DeleteAlias", FunctionName=self.name, Name=self.alias)
        await self._write(pointer.without_candidate())
        version = await self._version(candidate.id)
        if version.rollout == pointer.candidate.rollout:  # one that an earlier rollout made stays
            with suppress(AwsRefused):
                await self.aws.call(
                    "lambda", "DeleteFunction", FunctionName=self.name, Qualifier=candidate.id
                )

    async def down(self) -> None:
        with suppress(AwsRefused):
            await self.aws.call("lambda", "DeleteFunction", FunctionName=self.name)

    async def _write_code(self, release: Release, rollout: str) -> None:
        """$LATEST is the release as configured now; callers of the alias see nothing of it."""
        outputs = await self.outputs()
        image = tasks.deployed_image(release, self.environment).reference
        function = self.environment.function
        common: dict[str, Any] = {
            "FunctionName": self.name,
            "Role": outputs["ExecutionRole"],
            "Timeout": int(function.timeout.total_seconds()),
            "MemorySize": function.memory,
            "Environment": {"Variables": self._variables(release, rollout)},
            "LoggingConfig": {"LogGroup": outputs["LogGroup"]},
        }
        try:
            await self.aws.call("lambda", "UpdateFunctionConfiguration", **common)
        except AwsRefused as error:
            if error.code != "ResourceNotFoundException":
                raise
            await self.aws.call(
                "lambda",
                "CreateFunction",
                **common,
                PackageType="Image",
                Code={"ImageUri": image},
                Tags=Pointer(fence=self.fence).to_tags(),
            )
            await self._until_active(None)
            return
        await self._until_active(None)
        await self.aws.call("lambda", "UpdateFunctionCode", FunctionName=self.name, ImageUri=image)
        await self._until_active(None)

    async def _publish(self, release: Release, rollout: str) -> Version:
        answer = await self.aws.call(
            "lambda",
            "PublishVersion",
            FunctionName=self.name,
            CodeSha256=release.image.digest.removeprefix("sha256:"),
            Description=f"{release.version} {rollout}",
        )
        self.aws.must_be_here(answer["FunctionArn"], "the function's version")
        return self._read(answer, answer["Version"])

    def _variables(self, release: Release, rollout: str) -> dict[str, str]:
        return {
            **tasks.variables(release, self.environment),
            **tasks.secret_arns(self.aws, self.environment),
            _RELEASE: json.dumps(release.to_json(), sort_keys=True),
            _FINGERPRINT: self.fingerprint(release),
            _ROLLOUT: rollout,
        }

    async def _until_active(self, version: str | None) -> None:
        qualifier = {} if version is None else {"Qualifier": version}
        shown = f"aws lambda get-function-configuration --function-name {self.name}"

        async def active() -> bool:
            found = await self.aws.call(
                "lambda", "GetFunctionConfiguration", FunctionName=self.name, **qualifier
            )
            state = (found.get("State", "Active"), found.get("LastUpdateStatus", "Successful"))
            if "Failed" in state:
                reason = found.get("StateReason") or found.get("LastUpdateStatusReason")
                raise DeploymentFailed(
                    f"Lambda gave up {self.name}: {reason or 'no reason given'}", remedy=shown
                )
            return state == ("Active", "Successful")

        what = f"{self.name} {'as it is written' if version is None else f'version {version}'}"
        await self.until(active, what, patience=_PATIENCE, remedy=shown)

    async def _must_run(self, version: str, release: Release) -> None:
        # By the version's own code hash: the image URI that GetFunction tells is of the newest.
        found = await self.aws.call(
            "lambda", "GetFunctionConfiguration", FunctionName=self.name, Qualifier=version
        )
        if found["CodeSha256"] != release.image.digest.removeprefix("sha256:"):
            raise WrongDigest(
                f"version {version} of {self.name} holds {found['CodeSha256']}, not "
                f"{release.image.digest}",
                remedy=f"aws lambda get-function --function-name {self.name} --qualifier {version}",
            )

    async def _version(self, number: str) -> Version:
        try:
            found = await self.aws.call(
                "lambda", "GetFunctionConfiguration", FunctionName=self.name, Qualifier=number
            )
        except AwsRefused as error:
            if error.code == "ResourceNotFoundException":
                raise ManifestLost(
                    f"version {number} of {self.name} in {self.aws.where} is gone",
                    remedy="buildonce deploy ENV --release VERSION deploys it as configured now",
                ) from error
            raise
        return self._read(found, number)

    def _read(self, found: dict[str, Any], number: str) -> Version:
        try:
            values = found["Environment"]["Variables"]
            release = Release.from_json(json.loads(values[_RELEASE]))
            mark, rollout = values[_FINGERPRINT], values[_ROLLOUT]
        except (KeyError, ValueError) as error:
            raise ManifestLost(
                f"version {number} of {self.name} is not one of buildonce: {error}",
                remedy=f"aws lambda get-function --function-name {self.name} --qualifier {number}",
            ) from error
        return Version(number, release, mark, rollout, found.get("State", "Active") == "Active")

    async def _alias(self) -> dict[str, Any] | None:
        try:
            return await self.aws.call(
                "lambda", "GetAlias", FunctionName=self.name, Name=self.alias
            )
        except AwsRefused as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise

    async def _route(self, version: str, other: str | None, percent: int) -> None:
        """The version gets `percent` of the alias's calls and the other one the rest."""
        alias = await self._alias()
        main = version if percent == 100 or other is None else other
        weights = {} if main == version else {version: percent / 100}
        common = {
            "FunctionName": self.name,
            "Name": self.alias,
            "FunctionVersion": main,
            "RoutingConfig": {"AdditionalVersionWeights": weights},
        }
        if alias is None:
            await self.aws.call("lambda", "CreateAlias", **common)
        else:
            try:
                # With the revision that we saw: two who write at once cannot both succeed.
                await self.aws.call(
                    "lambda", "UpdateAlias", **common, RevisionId=alias["RevisionId"]
                )
            except AwsRefused as error:
                if error.code == "PreconditionFailedException":
                    raise LeaseLost(
                        f"somebody else changed the alias {self.alias} of {self.name}",
                        remedy=f"buildonce status; buildonce resume {self.environment.name}",
                    ) from error
                raise
        seen = await self._alias()
        wanted = percent if main != version else 100
        if _share(seen, version) != wanted:
            raise TargetFailed(
                f"the alias {self.alias} of {self.name} was given {wanted} % for version {version} "
                f"and has {_share(seen, version)} %",
                remedy=f"buildonce resume {self.environment.name}",
            )

    async def _pointer(self) -> Pointer:
        try:
            answer = await self.aws.call(
                "lambda", "ListTags", Resource=self.aws.arn("lambda", f"function:{self.name}")
            )
        except AwsRefused as error:
            if error.code == "ResourceNotFoundException":
                return Pointer()
            raise
        tags = answer.get("Tags", {})
        return Pointer.from_tags({k.removeprefix("buildonce:"): v for k, v in tags.items()})

    async def _write(self, pointer: Pointer) -> None:
        await self.aws.call(
            "lambda",
            "TagResource",
            Resource=self.aws.arn("lambda", f"function:{self.name}"),
            Tags=pointer.fenced(self.fence, self.environment.name).to_tags(),
        )


def _share(alias: dict[str, Any] | None, version: str) -> int:
    """Percent of the alias's calls that the version gets."""
    if alias is None:
        return 0
    weights: dict[str, float] = (alias.get("RoutingConfig") or {}).get(
        "AdditionalVersionWeights"
    ) or {}
    if alias["FunctionVersion"] == version:
        return 100 - round(100 * sum(weights.values()))
    return round(100 * weights.get(version, 0.0))


def _candidate(entry: Entry, version: Version, percent: int) -> Candidate:
    return Candidate(entry.id, entry.rollout, version.release, percent, manifest=version.manifest)
