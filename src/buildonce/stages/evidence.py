"""What a check leaves to be signed onto the image: the bare predicate of an in-toto attestation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagger
from dagger import dag

from buildonce.predicates import SARIF, TEST_RESULT


@dataclass(frozen=True)
class Evidence:
    """A statement about what was built.

    Args:
        type: the in-toto predicate type, a URI of `buildonce.predicates`.
        predicate: the bare predicate, a JSON file. The same result gives the same bytes.
        name: unique in a run: "unit_tests", "sbom-image".
    """

    type: str
    predicate: dagger.File
    name: str


def json_file(name: str, value: object) -> dagger.File:
    """A file with this value as JSON; equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text_file(name, text)


def text_file(name: str, text: str) -> dagger.File:
    """A file with this text; half characters, which no file can hold, become question marks."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return dag.directory().with_new_file(name, whole).file(name)


def result_evidence(
    check: str,
    *,
    passed: bool,
    passed_tests: Sequence[str] = (),
    failed_tests: Sequence[str] = (),
    configuration: Mapping[str, Any] | None = None,
) -> Evidence:
    """A test result, as https://in-toto.io/attestation/test-result/v0.1 defines it.

    Without times: the same tests of the same source are the same evidence.

    Args:
        check: the check's name; it is the first configuration's name.
        passed: whether the check passed.
        passed_tests: names of tests that passed.
        failed_tests: names of those that did not.
        configuration: what the check was asked to do: thresholds, paths.
    """
    predicate = result_predicate(check, passed, passed_tests, failed_tests, configuration or {})
    return Evidence(TEST_RESULT, json_file(f"{check}.json", predicate), check)


def result_predicate(
    check: str,
    passed: bool,
    passed_tests: Sequence[str],
    failed_tests: Sequence[str],
    configuration: Mapping[str, Any],
) -> dict[str, Any]:
    """The predicate of a test result; pure."""
    return {
        "result": "PASSED" if passed else "FAILED",
        "configuration": [{"name": check, "annotations": dict(configuration)}],
        "passedTests": sorted(passed_tests),
        "warnedTests": [],
        "failedTests": sorted(failed_tests),
    }


def sarif_evidence(check: str, sarif: dagger.File) -> Evidence:
    """A SARIF log as evidence; `runs[0].automationDetails.id` is the check's name."""
    return Evidence(SARIF, sarif, check)
