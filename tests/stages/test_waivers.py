from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildonce.severity import SEVERITIES, at_least, from_score, to_score
from buildonce.stages import Finding, Waiver, apply_waivers
from buildonce.stages.finding import Fingerprints, fingerprint

TODAY = date(2026, 11, 21)
FINDING = Finding(
    "py-weak-hash", "MD5", "src/a.py", 3, severity="high", fingerprint="ab" * 8, aliases=("B303",)
)


def waiver(id: str = "py-weak-hash", *, days: int = 1, path: str | None = None) -> Waiver:
    return Waiver("sast", id, "old protocol", TODAY + timedelta(days), path, "ci/pipeline.toml:7")


def test_a_waiver_names_rule_alias_or_fingerprint() -> None:
    for name in FINDING.names:
        done = apply_waivers("sast", [FINDING], [waiver(name)], today=TODAY)
        assert not done.findings
        assert [w.finding for w in done.waived] == [FINDING]
        assert not done.expired and not done.notes
    assert len(FINDING.names) == 3


def test_its_last_day_counts_and_the_next_day_fails() -> None:
    assert not apply_waivers("sast", [FINDING], [waiver(days=0)], today=TODAY).findings
    done = apply_waivers("sast", [FINDING], [waiver(days=-1)], today=TODAY)
    assert done.findings == (FINDING,)
    (expired,) = done.expired
    assert (expired.path, expired.line) == ("ci/pipeline.toml", 7)
    assert "expired on 2026-11-20" in str(expired) and "old protocol" in str(expired)
    # Also when there is nothing left to waive: somebody takes it out.
    assert apply_waivers("sast", [], [waiver(days=-1)], today=TODAY).expired


def test_an_unused_one_is_told_and_those_of_other_checks_are_passed_over() -> None:
    done = apply_waivers("sast", [FINDING], [waiver("py-other")], today=TODAY)
    assert done.findings == (FINDING,)
    assert done.notes == (
        "ci/pipeline.toml:7: the waiver of py-other (old protocol) silences nothing: take it out",
    )
    other = apply_waivers("secrets", [FINDING], [waiver()], today=TODAY)
    assert other.findings == (FINDING,) and not other.notes and not other.expired


def test_the_path_narrows_it() -> None:
    for path, covered in {"src/a.py": True, "src/*": True, "src": False, "*/b.py": False}.items():
        left = apply_waivers("sast", [FINDING], [waiver(path=path)], today=TODAY).findings
        assert (left == ()) is covered, path
    nowhere = Finding("py-weak-hash", "MD5")
    assert apply_waivers("sast", [nowhere], [waiver(path="*")], today=TODAY).findings


@given(st.lists(st.sampled_from(["x = 1", "y = 2", "  x  =  1 "]), max_size=6))
def test_fingerprints_are_unique_and_stable(lines: list[str]) -> None:
    first, second = Fingerprints(), Fingerprints()
    made = [first.of("a.py", "rule", line) for line in lines]
    assert len(set(made)) == len(made)
    assert made == [second.of("a.py", "rule", line) for line in lines]
    assert fingerprint("a.py", "r", "x = 1") == fingerprint("a.py", "r", "\tx  =\n1 ")


def test_severities_are_in_order_and_scores_name_them() -> None:
    assert [at_least(s, "medium") for s in SEVERITIES] == [False, False, True, True, True]
    assert [from_score(to_score(severity)) for severity in SEVERITIES] == list(SEVERITIES)
    assert [from_score(s) for s in (0, 0.1, 3.9, 4.0, 6.9, 7.0, 8.9, 9.0, 10)] == [
        "info", "low", "low", "medium", "medium", "high", "high", "critical", "critical",
    ]  # fmt: skip
