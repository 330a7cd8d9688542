"""`[policies.NAME]`: what evidence an environment demands before a release may enter it.

    [policies.production]
    signature = { keys = ["keys/release.pub"] }       # left out: the pipeline's own key
    max_age = "30d"
    tests = ["format_and_lint", "type_check", "unit_tests"]
    sbom = ["python", "image"]
    vulnerabilities = { fail_on = "high", database_max_age = "7d" }
    verified_in = { staging = "10m" }

    [environments.production]
    policy = "production"                             # left out: DEFAULT_POLICY below

What a policy does not mention it does not demand, but for the signature, the release record and
the tests, which every policy demands unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from buildonce.config.base import Duration, Table, parse_duration
from buildonce.config.mistakes import did_you_mean
from buildonce.severity import Severity

WITHOUT_POLICY = "none"
DEFAULT = "default"

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
SbomKind = Literal["python", "image"]


class IdentityRule(Table):
    """A keyless signer.

    Attributes:
        issuer: the OpenID Connect issuer, exactly.
        subject: what the certificate names, exactly; with ^ in front, an expression.
    """

    issuer: Text
    subject: Text


class SignatureRule(Table):
    """By whom the image and its evidence must be signed; with neither, by the pipeline's own key.

    Attributes:
        keys: public key files (PEM), relative to the configuration file; any of them will do.
        identities: keyless signers; any of them will do.
    """

    keys: tuple[Path, ...] = ()
    identities: tuple[IdentityRule, ...] = ()

    @field_validator("keys")
    @classmethod
    def _no_private_key(cls, keys: tuple[Path, ...]) -> tuple[Path, ...]:
        for key in keys:
            if key.suffix == ".key":
                raise ValueError(f"{key} looks like a private key; the public one is wanted")
        return keys


class ProvenanceRule(Table):
    """Where the image must come from. In patterns `*` stands for anything but a slash, `**` for
    anything; each list is satisfied by any of its members, and an empty one demands nothing.

    Attributes:
        builder: patterns of the builder's id.
        source: patterns of the source repository's address, without "git+" and without "@ref".
        branch: patterns of the branch that the commit was built from: "main", "release/*".
        clean: the source was a commit, without changes beside it.
    """

    builder: tuple[Text, ...] = ()
    source: tuple[Text, ...] = ()
    branch: tuple[Text, ...] = ()
    clean: bool = False


class VulnerabilityRule(Table):
    """What vulnerabilities a release may have.

    Attributes:
        fail_on: one of this severity or worse is refused, unless it is waived.
        database_max_age: how old the advisory database may be when the release enters.
        allow_sample: the repository's small sample of advisories will do as a database.
        unscored: what one without any score counts as; "fail": as `fail_on`.
        unfixed: "note" lets one in that no version mends yet.
    """

    fail_on: Severity = "high"
    unscored: Severity | Literal["fail"] = "fail"
    unfixed: Literal["fail", "note"] = "fail"
    database_max_age: Duration = timedelta(days=7)
    allow_sample: bool = False


class FindingsRule(Table):
    """What findings of the static analysis a release may have: none of this severity or worse."""

    fail_on: Severity = "high"


def _waiting_times(value: object) -> object:
    """`verified_in = "staging"` is short for no waiting time there; "0s" says it at length."""
    if isinstance(value, str):
        return {value: timedelta(0)}
    if not isinstance(value, dict):
        return value
    return {k: timedelta(0) if v == "0s" else parse_duration(v) for k, v in value.items()}


class PolicyConfig(Table):
    """One policy.

    Attributes:
        signature: by whom everything must be signed.
        release_record: the signed record must be there and equal what is deployed, and every piece
            of evidence that it lists must be there.
        max_age: evidence older than this does not count; None: whatever its age.
        tests: names of checks that must have passed; "all": whatever checks there are, at least
            one; []: none are demanded.
        provenance, vulnerabilities, sast: as their rules say; None demands nothing.
        sbom: of which kinds there must be a bill of materials.
        secrets: the search for secrets must have found none.
        licences: the check of licences must have passed.
        verified_in: environments where this very digest must have run, and for how long.
        status_max_age: some rescan must have found the release still good within this time. A
            withdrawal that somebody deletes from the registry comes to light at the latest then.
    """

    signature: SignatureRule = SignatureRule()
    release_record: bool = True
    max_age: Duration | None = None
    tests: tuple[Text, ...] | Literal["all"] = "all"
    provenance: ProvenanceRule | None = None
    sbom: tuple[SbomKind, ...] = ()
    vulnerabilities: VulnerabilityRule | None = None
    sast: FindingsRule | None = None
    secrets: bool = False
    licences: bool = False
    verified_in: Annotated[dict[str, timedelta], BeforeValidator(_waiting_times)] = Field(
        default_factory=dict
    )
    status_max_age: Duration | None = None

    @field_validator("tests", mode="before")
    @classmethod
    def _all_or_names(cls, tests: object) -> object:
        if isinstance(tests, str) and tests != "all":
            raise ValueError(f'"all" or a list of names is wanted, such as ["{tests}"]')
        return tests

    @model_validator(mode="after")
    def _all_is_known(self) -> Self:
        if self.tests == "all" and not self.release_record:
            raise ValueError(
                'tests = "all" needs the release record, which lists them: a result that somebody '
                "took away would not be missed; name the tests, or leave out release_record"
            )
        return self


DEFAULT_POLICY = PolicyConfig()
"""Signed by the pipeline's own key, recorded, and all its tests passed."""


def check_policies(policies: Mapping[str, PolicyConfig], chosen: Mapping[str, str | None]) -> None:
    """That names mean something.

    Args:
        policies: what is defined.
        chosen: the policy that each environment names; None where it names none.

    Raises:
        ValueError: a name stands for nothing, or for something else.
    """
    for name, policy in policies.items():
        if name == WITHOUT_POLICY:
            raise ValueError(
                f"policies.{name}: the name {name!r} means that there is no policy; take another"
            )
        for environment in policy.verified_in:
            if environment not in chosen:
                raise ValueError(
                    f"policies.{name}.verified_in: there is no environment "
                    f"{environment!r}{did_you_mean(environment, chosen)}"
                )
    for environment, wanted in chosen.items():
        if wanted in (None, DEFAULT, WITHOUT_POLICY):
            continue
        if wanted not in policies:
            raise ValueError(
                f"environments.{environment}.policy: there is no policy "
                f"{wanted!r}{did_you_mean(str(wanted), [*policies, DEFAULT, WITHOUT_POLICY])}"
            )
        if environment in policies[str(wanted)].verified_in:
            raise ValueError(
                f"environments.{environment}.policy: {wanted} wants a release to have run in "
                f"{environment} before it may enter {environment}"
            )
