"""Reading predicates strictly: what a rule needs has the known form, or nothing is believed.

    result = read(TestResult, attestation)          # raises Unreadable, and says what is amiss

A field that a rule needs and a value that it does not know raise; they never count as good. Fields
that a standard lets anybody add are passed over in standard predicates (SARIF, CycloneDX, SLSA,
vulnerabilities), as in-toto demands of readers; in our own, an unknown field raises as well.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from buildonce.config.policies import VulnerabilityRule
from buildonce.release.evidence import Attestation
from buildonce.severity import SEVERITIES, Severity, at_least, from_score, rank

M = TypeVar("M", bound=BaseModel)

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(min_length=1)]


def _time(value: object) -> object:
    # A number would be read as seconds since 1970; a statement says its times in words.
    if isinstance(value, datetime | str):
        return value
    raise ValueError("a time with its zone is wanted (RFC 3339)")


Time = Annotated[AwareDatetime, BeforeValidator(_time)]


class Unreadable(ValueError):
    """A predicate that has not the form of its type."""


class Ours(BaseModel):
    """A predicate, or a part of one, in which nothing unknown is suffered."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Standard(BaseModel):
    """A part of a predicate to which others may have added fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def read(model: type[M], attestation: Attestation) -> M:
    """The predicate as this model.

    Raises:
        Unreadable: it has not that form.
    """
    try:
        return model.model_validate(attestation.predicate)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the predicate"
        cause = "is missing" if first["type"] == "missing" else f"cannot be: {first['msg']}"
        if first["type"] == "extra_forbidden":
            cause = "is no field that this type has"
        raise Unreadable(f"{where} {cause}") from None


class Named(Standard):
    """A resource of which only the name matters."""

    name: Word


class TestResult(Ours):
    """https://in-toto.io/attestation/test-result/v0.1"""

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: Annotated[list[Named], Field(min_length=1)]
    passedTests: list[str]
    warnedTests: list[str]
    failedTests: list[str]
    url: str | None = None


class Component(Standard):
    type: Word
    name: Word
    version: str = ""


class Sbom(Standard):
    """https://cyclonedx.org/bom: only what says that it is one, and not an empty one."""

    bomFormat: Literal["CycloneDX"]
    specVersion: Literal["1.4", "1.5", "1.6", "1.7"]
    components: Annotated[list[Component], Field(min_length=1)]


class Database(Standard):
    """What a scan was made against."""

    lastUpdate: Time
    sample: bool


class _Score(Standard):
    method: str = ""
    score: str | float | int


class _Waived(Standard):
    reason: Word
    expires: date


class _Note(Standard):
    package: str = ""
    version: str = ""
    fixed: tuple[str, ...] = ()
    severity: Literal["unknown", "info", "low", "medium", "high", "critical"] | None = None
    waived: _Waived | None = None


class Vulnerability(Standard):
    """One vulnerability of a scan's result."""

    id: Word
    severity: tuple[_Score, ...] = ()
    annotations: _Note = _Note()

    @property
    def worst(self) -> Severity | None:
        """The worst that anybody says of it; None when nobody says anything."""
        word = self.annotations.severity
        named: list[Severity] = [] if word is None or word == "unknown" else [word]
        scored = [found for item in self.severity if (found := _scored(item.score)) is not None]
        return max([*named, *scored], key=rank, default=None)

    def waived(self, today: date) -> bool:
        """Whether somebody accepted it, in the open, for longer than until yesterday."""
        waiver = self.annotations.waived
        return waiver is not None and waiver.expires >= today

    def breaks(self, rule: VulnerabilityRule, today: date) -> bool:
        """Whether the rule keeps a release out for it."""
        unscored = rule.fail_on if rule.unscored == "fail" else rule.unscored
        return (
            at_least(self.worst or unscored, rule.fail_on)
            and not self.waived(today)
            and (bool(self.annotations.fixed) or rule.unfixed == "fail")
        )

    def __str__(self) -> str:
        note = self.annotations
        of = f" in {note.package} {note.version}".rstrip() if note.package else ""
        fixed = f", fixed in {' or '.join(note.fixed)}" if note.fixed else ", no fix known"
        over = f", its waiver ended on {note.waived.expires}" if note.waived else ""
        return f"{self.id} ({self.worst or 'no score'}){of}{fixed}{over}"


def _scored(score: str | float) -> Severity | None:
    if isinstance(score, str) and score.lower() in SEVERITIES:
        return next(name for name in SEVERITIES if name == score.lower())
    try:
        return from_score(float(score))
    except ValueError:  # a vector, or a word of another scale
        return None


class _Scanner(Standard):
    db: Database
    result: tuple[Vulnerability, ...]


class _ScanTimes(Standard):
    scanFinishedOn: Time


class Vulnerabilities(Standard):
    """https://in-toto.io/attestation/vulns/v0.1"""

    scanner: _Scanner
    metadata: _ScanTimes | None = None


class Licences(Ours):
    """urn:buildonce:licences:v1"""

    result: Literal["PASSED", "FAILED"]
    denied: list[Any]
    unknown: list[Any]
    waived: list[Any] = Field(default_factory=list)
    allowed: list[Any] = Field(default_factory=list)
    components: Any = None
    policy: Any = None


class _Invocation(Standard):
    executionSuccessful: Literal[True]


class _Text(Standard):
    text: str = ""


class _Suppression(Standard):
    kind: str
    status: str | None = None

    def silences(self, kinds: set[str]) -> bool:
        # "underReview" and "rejected" do not, as SARIF 2.1.0, 3.35.3 has it.
        return self.kind in kinds and self.status in (None, "accepted")


class _Result(Standard):
    ruleId: str = ""
    ruleIndex: int | None = None
    level: str | None = None
    message: _Text = _Text()
    suppressions: tuple[_Suppression, ...] | None = None
    properties: dict[str, Any] = Field(default_factory=dict)


class _Rule(Standard):
    id: Word
    properties: dict[str, Any] = Field(default_factory=dict)
    defaultConfiguration: dict[str, Any] = Field(default_factory=dict)


class _Driver(Standard):
    name: Word
    rules: tuple[_Rule, ...] = ()


class _Tool(Standard):
    driver: _Driver


class _Automation(Standard):
    id: Word


class _Run(Standard):
    tool: _Tool
    automationDetails: _Automation
    results: tuple[_Result, ...]
    invocations: Annotated[tuple[_Invocation, ...], Field(min_length=1)]


class Sarif(Standard):
    """A SARIF 2.1.0 log of runs that came to their end."""

    version: Literal["2.1.0"]
    runs: Annotated[tuple[_Run, ...], Field(min_length=1)]

    def findings(self, *, comments_count: bool) -> list[tuple[Severity, str]]:
        """Severity and description of each result that nothing silences.

        Args:
            comments_count: whether a comment in the source silences, as a waiver does.
        """
        kinds = {"external", "inSource"} if comments_count else {"external"}
        found = []
        for run in self.runs:
            rules = {rule.id: rule for rule in run.tool.driver.rules}
            for result in run.results:
                if not any(item.silences(kinds) for item in result.suppressions or ()):
                    severity = _severity(result, rules.get(result.ruleId))
                    found.append((severity, _described(result)))
        return found

    @property
    def checks(self) -> set[str]:
        """The checks that it says it is of."""
        return {run.automationDetails.id for run in self.runs}

    @property
    def results(self) -> int:
        """How many results there are, silenced ones among them."""
        return sum(len(run.results) for run in self.runs)


_LEVELS: dict[str, Severity] = {"error": "high", "warning": "medium", "note": "low", "none": "info"}


def _severity(result: _Result, rule: _Rule | None) -> Severity:
    for value in (
        result.properties.get("severity"),
        result.properties.get("security-severity"),
        rule.properties.get("security-severity") if rule else None,
    ):
        if isinstance(value, str | int | float) and (found := _scored(value)) is not None:
            return found
    level = result.level or (rule.defaultConfiguration.get("level") if rule else None)
    return _LEVELS.get(str(level), "critical")


def _described(result: _Result) -> str:
    return f"{result.ruleId}: {result.message.text}" if result.ruleId else result.message.text


class Dependency(Standard):
    """Something that went into a build."""

    uri: str = ""
    digest: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, Any] = Field(default_factory=dict)


class _Definition(Standard):
    buildType: Word
    externalParameters: dict[str, Any]
    resolvedDependencies: tuple[Dependency, ...] = ()


class _Builder(Standard):
    id: Word


class _BuildTimes(Standard):
    startedOn: Time | None = None
    finishedOn: Time | None = None


class _RunDetails(Standard):
    builder: _Builder
    metadata: _BuildTimes = _BuildTimes()


class Provenance(Standard):
    """https://slsa.dev/provenance/v1"""

    buildDefinition: _Definition
    runDetails: _RunDetails

    @property
    def source(self) -> Dependency | None:
        """The source: the one dependency that is a Git commit; None when it is not just one."""
        found = [d for d in self.buildDefinition.resolvedDependencies if "gitCommit" in d.digest]
        return found[0] if len(found) == 1 else None


class Advisory(Ours):
    """An advisory that made a release lose its standing."""

    id: Word
    package: str = ""
    version: str = ""
    severity: Severity
    fixed: tuple[str, ...] = ()

    def __str__(self) -> str:
        of = f" in {self.package} {self.version}".rstrip() if self.package else ""
        fixed = f", fixed in {' or '.join(self.fixed)}" if self.fixed else ", no fix known"
        return f"{self.id} ({self.severity}){of}{fixed}"


class Status(Ours):
    """urn:buildonce:release-status:v1: what became known after the release.

    Attributes:
        state: withdrawn; reinstated: the withdrawals that `lifts` names no longer count; good: a
            rescan found nothing that breaks the policy.
        at: when.
        by: who or what said so.
        reason: why, one sentence.
        environments: where it counts; None: everywhere.
        advisories: what broke the policy.
        database: date of the advisory database that a rescan asked; None where a person decided.
        lifts: digests of the withdrawals that a reinstatement lifts.
        seen: digests of all statuses that were there when this one was written.
    """

    state: Literal["withdrawn", "reinstated", "good"]
    at: Time
    by: Word
    reason: Word
    environments: Annotated[tuple[Word, ...], Field(min_length=1)] | None
    advisories: tuple[Advisory, ...]
    database: Time | None
    sample: bool = False
    lifts: tuple[Digest, ...]
    seen: tuple[Digest, ...]
