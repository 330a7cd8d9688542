"""Lambda with what moto leaves out: versions that keep their code, and an alias with a lock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .registries import unsupported
from .wire import Call, ServiceError

if TYPE_CHECKING:
    from .place import Place

_UPDATE = 5.0  # seconds that a change of $LATEST takes


@dataclass
class Code:
    """A version as it was published, or $LATEST."""

    image: str
    configuration: dict[str, Any]
    ready_at: float = 0.0
    description: str = ""


@dataclass
class Alias:
    version: str
    weights: dict[str, float]
    revision: str


@dataclass
class Function:
    name: str
    latest: Code
    tags: dict[str, str]
    versions: dict[str, Code] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    count: int = 0


class Functions:
    """The Lambda of one account and region."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.functions: dict[str, Function] = {}
        self.writes = 0

    def serving(self, name: str, alias: str = "live") -> dict[str, float]:
        """Share of the alias's calls by image digest."""
        function = self.functions.get(name)
        if function is None or alias not in function.aliases:
            return {}
        found = function.aliases[alias]
        shares: dict[str, float] = {}
        rest = 100.0
        for version, weight in found.weights.items():
            digest = self._digest(function.versions[version])
            shares[digest] = shares.get(digest, 0.0) + 100 * weight
            rest -= 100 * weight
        digest = self._digest(function.versions[found.version])
        shares[digest] = shares.get(digest, 0.0) + rest
        return {digest: share for digest, share in shares.items() if share}

    def variables(self, digest: str) -> dict[str, str]:
        """The environment variables of the newest version that runs this digest."""
        found: dict[str, str] = {}
        for function in self.functions.values():
            for code in function.versions.values():
                if self._digest(code) == digest:
                    found = dict(code.configuration.get("Environment", {}).get("Variables", {}))
        return found

    def CreateFunction(self, call: Call) -> dict[str, Any]:
        p = call.parameters
        if p["FunctionName"] in self.functions:
            raise ServiceError("ResourceConflictException", "Function already exist", 409)
        self._pullable(p["Code"]["ImageUri"])
        code = Code(p["Code"]["ImageUri"], _configuration(p), self._later())
        self.functions[p["FunctionName"]] = Function(
            p["FunctionName"], code, dict(p.get("Tags", {}))
        )
        return self._shown(self.functions[p["FunctionName"]], "$LATEST")

    def UpdateFunctionConfiguration(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        self._idle(function)
        latest = function.latest
        function.latest = Code(
            latest.image, {**latest.configuration, **_configuration(call.parameters)}, self._later()
        )
        return self._shown(function, "$LATEST")

    def UpdateFunctionCode(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        self._idle(function)
        self._pullable(call.parameters["ImageUri"])
        function.latest = Code(
            call.parameters["ImageUri"], function.latest.configuration, self._later()
        )
        return self._shown(function, "$LATEST")

    def PublishVersion(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        self._idle(function)
        wanted = call.parameters.get("CodeSha256")
        if wanted and wanted != self._sha(function.latest):
            raise ServiceError("InvalidParameterValueException", "CodeSHA256 is different")
        for number, code in function.versions.items():
            newest = number == str(function.count)
            same = code.image == function.latest.image
            if newest and same and code.configuration == function.latest.configuration:
                return self._shown(function, number)
        function.count += 1
        number = str(function.count)
        function.versions[number] = Code(
            function.latest.image,
            dict(function.latest.configuration),
            self._later(),
            call.parameters.get("Description", ""),
        )
        return self._shown(function, number)

    def GetFunctionConfiguration(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        return self._shown(function, call.parameters.get("Qualifier", "$LATEST"))

    def GetFunction(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        version = call.parameters.get("Qualifier", "$LATEST")
        if version in function.aliases:
            version = function.aliases[version].version
        shown = self._shown(function, version)
        code = function.latest if version == "$LATEST" else function.versions[version]
        return {
            "Configuration": shown,
            "Code": {
                "RepositoryType": "ECR",
                "ImageUri": code.image,
                "ResolvedImageUri": code.image,
            },
        }

    def DeleteFunction(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        version = call.parameters.get("Qualifier")
        if version is None:
            del self.functions[function.name]
            return {}
        used = {v for a in function.aliases.values() for v in (a.version, *a.weights)}
        if version in used:
            raise ServiceError("ResourceConflictException", "The version is behind an alias", 409)
        function.versions.pop(version, None)
        return {}

    def GetAlias(self, call: Call) -> dict[str, Any]:
        function = self._function(call)
        return self._alias(function, call.parameters["Name"])

    def CreateAlias(self, call: Call) -> dict[str, Any]:
        function, p = self._function(call), call.parameters
        if p["Name"] in function.aliases:
            raise ServiceError("ResourceConflictException", "Alias already exists", 409)
        weights = self._weights(function, p)
        function.aliases[p["Name"]] = Alias(p["FunctionVersion"], weights, self._revision())
        return self._alias(function, p["Name"])

    def UpdateAlias(self, call: Call) -> dict[str, Any]:
        function, p = self._function(call), call.parameters
        self._alias(function, p["Name"])
        alias = function.aliases[p["Name"]]
        if p.get("RevisionId", alias.revision) != alias.revision:
            raise ServiceError("PreconditionFailedException", "The RevisionId is not current", 412)
        weights = self._weights(function, p) if "RoutingConfig" in p else alias.weights
        version = p.get("FunctionVersion", alias.version)
        function.aliases[p["Name"]] = Alias(version, weights, self._revision())
        return self._alias(function, p["Name"])

    def DeleteAlias(self, call: Call) -> dict[str, Any]:
        self._function(call).aliases.pop(call.parameters["Name"], None)
        return {}

    def ListTags(self, call: Call) -> dict[str, Any]:
        return {"Tags": self._tagged(call).tags}

    def TagResource(self, call: Call) -> dict[str, Any]:
        self._tagged(call).tags.update(call.parameters["Tags"])
        return {}

    def _tagged(self, call: Call) -> Function:
        name = call.parameters["Resource"].rpartition(":")[2]
        if name not in self.functions:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {name}", 404)
        return self.functions[name]

    def _function(self, call: Call) -> Function:
        name = call.parameters["FunctionName"]
        if name not in self.functions:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {name}", 404)
        return self.functions[name]

    def _idle(self, function: Function) -> None:
        if self.place.clock.monotonic() < function.latest.ready_at:
            raise ServiceError(
                "ResourceConflictException", "An update is in progress for the function", 409
            )

    def _pullable(self, image: str) -> None:
        assert "@sha256:" in image, f"an image that is not named by digest: {image}"
        cause = self.place.refusal(image)
        if cause is None and (host := image.partition("/")[0]) == self.place.registry:
            cause = unsupported(host, self.place.account, image)
        if cause:
            raise ServiceError(
                "InvalidParameterValueException", f"Source image is not valid: {cause}"
            )

    def _weights(self, function: Function, p: dict[str, Any]) -> dict[str, float]:
        weights = dict((p.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {})
        for version in (p.get("FunctionVersion"), *weights):
            if version is not None and version not in function.versions:
                raise ServiceError("ResourceNotFoundException", f"no version {version}", 404)
        if len(weights) > 1 or any(not 0 <= weight <= 1 for weight in weights.values()):
            raise ServiceError("InvalidParameterValueException", "Invalid weights")
        if p.get("FunctionVersion") in weights:
            raise ServiceError("InvalidParameterValueException", "The same version twice")
        return weights

    def _later(self) -> float:
        return self.place.clock.monotonic() + _UPDATE

    def _revision(self) -> str:
        self.writes += 1
        return hashlib.sha256(str(self.writes).encode()).hexdigest()[:36]

    @staticmethod
    def _sha(code: Code) -> str:
        return code.image.rpartition("@sha256:")[2]

    def _digest(self, code: Code) -> str:
        return f"sha256:{self._sha(code)}"

    def _alias(self, function: Function, name: str) -> dict[str, Any]:
        if name not in function.aliases:
            raise ServiceError("ResourceNotFoundException", f"Cannot find alias: {name}", 404)
        alias = function.aliases[name]
        shown: dict[str, Any] = {
            "AliasArn": self.place.arn("lambda", f"function:{function.name}:{name}"),
            "Name": name,
            "FunctionVersion": alias.version,
            "RevisionId": alias.revision,
        }
        if alias.weights:
            shown["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
        return shown

    def _shown(self, function: Function, version: str) -> dict[str, Any]:
        code = function.latest if version == "$LATEST" else function.versions.get(version)
        if code is None:
            raise ServiceError("ResourceNotFoundException", f"no version {version}", 404)
        ready = self.place.clock.monotonic() >= code.ready_at
        ill = self.place.unhealthy(code.image)
        lie = self.place.lies_about_digest
        shown = {
            **code.configuration,
            "FunctionName": function.name,
            "FunctionArn": self.place.arn("lambda", f"function:{function.name}:{version}"),
            "Version": version,
            "PackageType": "Image",
            "CodeSha256": lie.removeprefix("sha256:") if lie else self._sha(code),
            "Description": code.description,
            "State": "Active" if ready and not ill else "Failed" if ready else "Pending",
            "LastUpdateStatus": "Successful" if ready else "InProgress",
            "RevisionId": self._revision(),
        }
        if ready and ill:
            shown["StateReason"] = "The container exited before it was ready"
        if "Environment" in code.configuration:
            shown["Environment"] = {"Variables": code.configuration["Environment"]["Variables"]}
        return shown


def _configuration(p: dict[str, Any]) -> dict[str, Any]:
    keys = ("Role", "Timeout", "MemorySize", "Environment", "LoggingConfig")
    return {key: p[key] for key in keys if key in p}
