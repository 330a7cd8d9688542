from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.stages.licences import ALLOWED, DENIED, judged
from buildonce.stages.licences_names import CLASSIFIERS
from buildonce.stages.licences_policy import LicenceRules, Verdict, is_spdx, parse

RULES = LicenceRules(ALLOWED, DENIED)
LEAVES = {
    "MIT": Verdict.ALLOWED,
    "GPL-2.0-only": Verdict.UNKNOWN,
    "AGPL-3.0-only": Verdict.DENIED,
    "Apache-2.0 WITH LLVM-exception": Verdict.ALLOWED,
}

expressions = st.recursive(
    st.sampled_from(sorted(LEAVES)).map(lambda leaf: (leaf, LEAVES[leaf])),
    lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner).map(
        lambda t: (
            f"({t[1][0]} {t[0]} {t[2][0]})",
            (min if t[0] == "AND" else max)(t[1][1], t[2][1]),
        )
    ),
    max_leaves=8,
)


@given(expressions)
def test_or_is_the_best_and_and_the_worst_of_its_parts(pair: tuple[str, Verdict]) -> None:
    assert RULES.verdict(pair[0]) == pair[1]


@pytest.mark.parametrize("text", ["", "(MIT", "MIT AND", "no licence at all", "x" * 3000])
def test_what_is_no_expression_is_unknown(text: str) -> None:
    assert RULES.verdict(text) is Verdict.UNKNOWN


def test_every_classifier_stands_for_licences_that_spdx_has() -> None:
    for expression in CLASSIFIERS.values():
        assert parse(expression) is not None
        assert all(is_spdx(part) for part in expression.split(" AND "))


def component(name: str, *licences: dict[str, object]) -> dict[str, object]:
    return {"name": name, "version": "1", "purl": f"pkg:pypi/{name}@1", "licenses": list(licences)}


PLANTED = [
    component("denied", {"license": {"id": "AGPL-3.0-only"}}),
    component("both", {"expression": "MIT AND SSPL-1.0"}),
    component("silent"),
    component("text", {"license": {"name": "MIT or so"}}),
]
HARMLESS = [
    component("choice", {"expression": "AGPL-3.0-only OR MIT"}),
    component("agpl-name", {"license": {"id": "MIT"}}),
    component("classified", {"license": {"name": "License :: OSI Approved :: BSD License"}}),
    component("excepted", {"expression": "Apache-2.0 WITH LLVM-exception"}),
]


def test_planted_conflicts_are_found_and_look_alikes_are_not() -> None:
    document = {"bomFormat": "CycloneDX", "components": [*PLANTED, *HARMLESS]}
    found = {one.name: one.verdict for one in judged([document], RULES, strict=True)}
    print(found)
    assert {name for name, verdict in found.items() if verdict is not Verdict.ALLOWED} == {
        "denied",
        "both",
        "silent",
        "text",
    }
    assert found["denied"] is found["both"] is Verdict.DENIED
