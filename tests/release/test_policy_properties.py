"""What holds for every policy and all evidence: nothing bad, missing or broken opens a door."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce import predicates
from buildonce.config.policies import PolicyConfig
from buildonce.release.evidence import Attestation
from buildonce.release.policy import Dossier

from . import policy_samples as samples
from .policy_samples import (
    EVIDENCE,
    MADE,
    NOW,
    STRICT,
    attested,
    decide,
    digest_of,
    dossier,
    finding,
    licences,
    provenance,
    sarif,
    scan,
    status,
    vulnerability,
)

FAILING = (
    samples.test_result("unit_tests", "FAILED", failed=("test_a",)),
    samples.test_result("format_and_lint", "WARNED"),
    provenance(builder="https://evil.test"),
    provenance(commit="c" * 40),
    scan(vulnerability("CVE-2", "9.8")),
    scan(updated=NOW - timedelta(days=90)),
    sarif("sast", finding("sql")),
    sarif("secrets", finding("hash")),
    licences("FAILED"),
    status("withdrawn"),
    attested(predicates.CYCLONEDX, "sbom_image", {"bomFormat": "SPDX"}),
    attested(predicates.STATUS, "status", {"state": "fine"}),
    attested(predicates.TEST_RESULT, "unit_tests", {}),
)
times = st.one_of(
    st.none(),
    st.integers(-60 * 24 * 40, 60 * 24).map(lambda minutes: NOW + timedelta(minutes=minutes)),
)


def made(item: Attestation, created: Any) -> Attestation:
    return replace(item, created=created, digest=digest_of(f"{item.digest} {created}"))


good = st.builds(made, st.sampled_from(EVIDENCE), st.one_of(st.just(MADE), times))
failing = st.builds(made, st.sampled_from(FAILING), st.one_of(st.just(MADE), times))
evidence = st.lists(st.one_of(st.sampled_from(EVIDENCE), good, failing), max_size=12)
nearly_all = st.builds(
    lambda gone, more: [*(i for n, i in enumerate(EVIDENCE) if n not in gone), *more],
    st.sets(st.integers(0, len(EVIDENCE) - 1), max_size=1),
    st.lists(st.one_of(good, failing), max_size=2),
)
some_evidence = st.one_of(evidence, nearly_all)
demands = st.sets(
    st.sampled_from(
        ["max_age", "tests", "provenance", "sbom", "vulnerabilities", "sast", "secrets",
         "licences", "verified_in", "status_max_age"]
    )
)  # fmt: skip


def asking(names: set[str]) -> PolicyConfig:
    return PolicyConfig.model_validate({name: getattr(STRICT, name) for name in names})


@given(some_evidence, failing, demands)
@settings(max_examples=100, deadline=None)
def test_evidence_of_a_failure_never_opens_a_door(
    before: list[Attestation], bad: Attestation, names: set[str]
) -> None:
    policy = asking(names)
    # Whether the record lists it or not.
    for listed in (None, tuple(before)):
        if not decide(dossier(*before, listed=listed), policy).allowed:
            assert not decide(dossier(*before, bad, listed=listed), policy).allowed


@given(some_evidence.filter(bool), st.data(), demands)
@settings(max_examples=100, deadline=None)
def test_taking_evidence_away_never_helps(
    before: list[Attestation], data: st.DataObject, names: set[str]
) -> None:
    gone = data.draw(st.sampled_from(before))
    left = [item for item in before if item.digest != gone.digest]
    # The record lists what was there at the release; a machine remembers the statuses it saw.
    seen = frozenset(item.digest for item in before if item.type == predicates.STATUS)
    what = dossier(*left, listed=tuple(i for i in before if i.type != predicates.STATUS))
    assert not decide(replace(what, remembered=seen), asking(names)).allowed


@given(some_evidence, demands, st.permutations(range(12)))
@settings(max_examples=100, deadline=None)
def test_the_order_in_a_registry_means_nothing(
    before: list[Attestation], names: set[str], order: list[int]
) -> None:
    shuffled = [before[n] for n in order if n < len(before)]
    policy = asking(names)
    one, other = decide(dossier(*before), policy), decide(dossier(*shuffled), policy)
    assert one.allowed == other.allowed or len(before) > 12


@given(some_evidence, demands, demands)
@settings(max_examples=100, deadline=None)
def test_demanding_more_never_helps(
    before: list[Attestation], names: set[str], more: set[str]
) -> None:
    # Named tests are not more than "all" of them: the names stay as they are.
    more = names | (more - {"tests"})
    if not decide(dossier(*before), asking(names)).allowed:
        assert not decide(dossier(*before), asking(more)).allowed


@given(some_evidence, demands, st.integers(0, 60 * 24 * 60))
@settings(max_examples=100, deadline=None)
def test_growing_older_never_helps(
    before: list[Attestation], names: set[str], minutes: int
) -> None:
    # But for clocks: what is of the future is no longer of the future then.
    past = [i for i in before if i.created is None or i.created <= NOW]
    what, policy = dossier(*past), asking(names)
    if not decide(what, policy).allowed:
        assert not decide(what, policy, now=NOW + timedelta(minutes=minutes)).allowed


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from(EVIDENCE), st.dictionaries(st.text(max_size=8), json))
@settings(max_examples=100, deadline=None)
def test_a_predicate_of_any_other_form_is_refused(
    item: Attestation, predicate: dict[str, Any]
) -> None:
    others = [other for other in EVIDENCE if other is not item]
    line = next(
        line
        for line in decide(dossier(*others, replace(item, predicate=predicate))).lines
        if not line.passed
    )
    assert line.state == "error"


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _paths(inner, (*path, key))


def test_a_predicate_that_lacks_a_part_never_says_more() -> None:
    bad: dict[str, Dossier] = {}
    for item in FAILING:
        others = [o for o in EVIDENCE if (o.type, o.name) != (item.type, item.name)]
        for path in _paths(item.predicate):
            if any(isinstance(part, int) for part in path):
                continue  # a finding taken out of a list is the evidence of another scan
            predicate = copy.deepcopy(dict(item.predicate))
            holder: Any = predicate
            for part in path[:-1]:
                holder = holder[part]
            del holder[path[-1]]
            name = f"{item.name} {item.predicate.get('result')} without {path}"
            bad[name] = dossier(*others, replace(item, predicate=predicate))
    assert len(bad) >= 50
    assert [name for name, what in bad.items() if decide(what).allowed] == []


@given(st.lists(st.sampled_from(["withdrawn", "reinstated", "good"]), max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_statuses_hang_together(states: list[str], data: st.DataObject) -> None:
    """Each status names those before it; only the last can be taken away without a trace."""
    said: list[Attestation] = []
    for number, state in enumerate(states):
        open_ = tuple(item for item in said if item.predicate["state"] == "withdrawn")
        said.append(
            status(
                state,
                at=NOW - timedelta(hours=1) + timedelta(minutes=number),
                seen=tuple(said),
                lifts=open_ if state == "reinstated" else (),
            )
        )
    words = [s for s in states if s != "good"]
    expected = not words or words[-1] == "reinstated"
    assert decide(dossier(*EVIDENCE, *data.draw(st.permutations(said)))).allowed is expected
    if len(said) > 1:
        gone = data.draw(st.sampled_from(said[:-1]))
        left = [item for item in said if item is not gone]
        assert not decide(dossier(*EVIDENCE, *left)).allowed
