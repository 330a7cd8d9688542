"""What may be appended: the form of each kind's data."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.ledger import EventRefused, is_id, new_run_id
from buildonce.ledger.events import KINDS, checked

DIGEST = "sha256:" + "a" * 64
VALID: dict[str, dict[str, Any]] = {
    "promotion.started": {
        "promotion": "p1",
        "version": "1",
        "revision": "abc",
        "digest": "sha256:" + "a" * 64,
        "waves": [["pilot"], ["production"]],
        "reason": "deploy",
    },
    "promotion.step": {"promotion": "p1", "step": "proven", "data": {}},
    "promotion.finished": {
        "promotion": "p1",
        "result": "rolled-back",
        "seconds": 1.0,
        "cause": None,
    },
    "policy.decided": {
        "environment": "production",
        "version": "1",
        "digest": "sha256:" + "a" * 64,
        "policy": "strict",
        "allowed": False,
        "reason": "deploy",
        "lines": [],
    },
    "release.status": {
        "version": "1",
        "digest": "sha256:" + "a" * 64,
        "status": "sha256:" + "b" * 64,
        "state": "withdrawn",
        "environments": [],
        "actor": "ann",
        "reason": "a hole",
    },
    "run.started": {"pipeline": "p", "revision": "abc", "version": "1+gabc", "actor": "me"},
    "stage.started": {"stage": "commit"},
    "stage.finished": {
        "stage": "commit",
        "result": "passed",
        "seconds": 1.5,
        "cached": False,
        "summary": "",
    },
    "check.finished": {
        "stage": "commit",
        "check": "lint",
        "result": "failed",
        "seconds": 1,
        "cached": True,
        "summary": "2 files",
    },
    "release.created": {
        "version": "1",
        "revision": "abc",
        "digest": DIGEST,
        "repository": "127.0.0.1:5080/dashboard",
        "configuration": "",
        "committed_at": "2026-01-02T03:04:05+00:00",
    },
    "rollout.started": {
        "rollout": "r-1",
        "environment": "staging",
        "version": "1",
        "revision": "abc",
        "digest": DIGEST,
        "previous_digest": None,
        "reason": "deploy",
    },
    "rollout.step": {
        "rollout": "r-1",
        "environment": "staging",
        "step": "pulled",
        "data": {"percent": 10},
    },
    "rollout.finished": {
        "rollout": "r-1",
        "environment": "staging",
        "result": "succeeded",
        "digest": DIGEST,
        "seconds": 4,
        "cause": None,
    },
    "approval.given": {"environment": "production", "actor": "me"},
    "approval.refused": {"environment": "production", "actor": "me", "reason": "freeze"},
    "run.finished": {"result": "passed", "seconds": 9},
}


def test_there_is_an_example_of_every_kind() -> None:
    assert VALID.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", VALID)
def test_valid_data_is_kept_as_it_is(kind: str) -> None:
    assert checked(kind, VALID[kind]) == VALID[kind]


@pytest.mark.parametrize("kind", VALID)
def test_every_key_of_the_example_is_looked_at(kind: str) -> None:
    for key in VALID[kind]:
        with pytest.raises(EventRefused, match=re.escape(repr(key))):
            wrong: object = {"not": "a list"} if isinstance(VALID[kind][key], list) else [1]
            checked(kind, {**VALID[kind], key: wrong})


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind in VALID for key in VALID[kind] if key not in ("cause", "reason")],
)
def test_a_missing_key_is_named(kind: str, key: str) -> None:
    data = {name: value for name, value in VALID[kind].items() if name != key}
    with pytest.raises(EventRefused, match=f"'{key}' is missing"):
        checked(kind, data)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("run.finished", {"seconds": -1}),
        ("run.finished", {"seconds": float("nan")}),
        ("run.finished", {"seconds": True}),
        ("run.finished", {"result": "great"}),
        ("rollout.started", {"digest": "sha256:abc"}),
        ("rollout.started", {"digest": "latest"}),
        ("rollout.started", {"environment": "../production"}),
        ("rollout.started", {"version": "a/b"}),
        ("rollout.started", {"reason": "because"}),
        ("stage.started", {"stage": ""}),
        ("stage.started", {"stage": "x" * 257}),
        ("stage.finished", {"cached": 1}),
        ("release.created", {"committed_at": "yesterday"}),
        ("release.created", {"committed_at": "2026-01-02T03:04:05"}),
        ("rollout.step", {"data": {"when": object()}}),
        ("rollout.step", {"data": {1: "key is no text"}}),
        ("stage.finished", {"summary": "x" * 300_000}),
    ],
)
def test_bad_data_is_refused(kind: str, change: dict[str, Any]) -> None:
    with pytest.raises(EventRefused):
        checked(kind, {**VALID[kind], **change})


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(EventRefused, match=r"run\.begun") as refused:
        checked("run.begun", {})
    assert "run.started" in str(refused.value.remedy)


def test_a_newer_writer_may_say_more() -> None:
    data = {**VALID["stage.started"], "weather": "fine"}
    assert checked("stage.started", data) == data


def test_a_name_that_is_no_text_cannot_break_a_reader() -> None:
    data = checked("stage.started", {"stage": "caf\udce9"})
    assert data["stage"].encode() == b"caf?"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(sorted(VALID)), st.dictionaries(st.text(), json_values), st.data())
def test_any_json_is_either_refused_or_kept_with_its_form(
    kind: str, extra: dict[str, Any], data: st.DataObject
) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(VALID[kind])), unique=True))
    changed = {**extra, **VALID[kind], **{key: data.draw(json_values) for key in keys}}
    try:
        kept = checked(kind, changed)
    except EventRefused:
        return
    assert checked(kind, kept) == kept


def test_run_ids_sort_by_time_and_are_ids() -> None:
    one = new_run_id()
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", one)
    assert is_id(one)
    assert not any(is_id(bad) for bad in ("", "../x", "a b", "-x", "a" * 129, "a\n", "<b>"))
