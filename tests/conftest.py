"""What all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from buildonce import places

# How fast this machine is just now is no property of the code.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

# Whoever starts the tests in the background has told them to ignore these, and what they start
# would inherit that: tests of what a signal does need it delivered.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL
        )


ROOT = Path(__file__).parents[1]
# Files are handed out whole (`--dist loadfile`): one that takes minutes must not begin when all
# others have ended. Longest first, by `make test ARGS=--durations=0`; then the rest of e2e.
LONGEST = (
    "tests/e2e/test_pipeline.py",
    "tests/e2e/test_delivery_local.py",
    "tests/engine/test_faults.py",
    "tests/delivery/test_local.py",
    "tests/planted/test_planted.py",
    "tests/e2e/test_tamper.py",
    "tests/engine/test_remote.py",
    "tests/release/test_policy_check.py",
    "tests/faults/test_table.py",
    "tests/delivery/test_faults.py",
    "tests/engine/test_remote_cache.py",
)


# Tests that prove at length what others prove in small, and of how many cases one is kept in
# `make test` (0: none). `make test-all` runs all of them; beside each is what proves it in small.
LONG = {
    "tests/planted/test_planted.py": 0,  # tests/stages: each scanner on its examples
    "tests/e2e/test_delivery_aws.py": 0,  # tests/aws/test_rollouts.py: the same in one process
    "tests/e2e/test_delivery_local.py::test_kill_9": 0,  # delivery/test_faults.py: every point
    "tests/e2e/test_delivery_local.py::test_a_signal": 0,  # the same, and e2e/test_pipeline.py
    "tests/e2e/test_delivery_local.py::test_after_a_reboot": 0,  # delivery/test_local.py: the same
    "tests/e2e/test_pipeline.py::test_a_pull_request": 0,  # tests/pipeline/test_pipeline.py
    "tests/e2e/test_pipeline.py::test_a_change_of_no_source": 0,  # "the same commit again"
    "tests/e2e/test_pipeline.py::test_one_line": 0,  # tests/delivery/test_traffic.py
    "tests/e2e/test_pipeline.py::test_a_failing_smoke_test": 0,  # tests/delivery/test_local.py
    "tests/e2e/test_pipeline.py::test_what_failed_is_tried": 0,  # engine_buildkit/test_builds.py
    "tests/e2e/test_pipeline.py::test_an_interrupted_run": 0,  # tests/pipeline/test_pipeline.py
    "tests/e2e/test_pipeline.py::test_a_stage_is_of_use_alone": 0,  # tests/stages, tests/planted
    "tests/e2e/test_two_engines.py": 0,  # tests/dashboard/test_image.py, tests/engine: cache keys
    "tests/e2e/test_oldest_client.py": 0,  # tests/engine_surface: that client on a fake engine
    "tests/e2e/test_tamper.py::test_what_was_tampered_with": 8,  # tests/release: the same, below
    "tests/e2e/test_tamper.py::test_a_registry_that_does_not": 4,  # tests/release/test_registry.py
    "tests/delivery/test_faults.py::test_every_single_fault": 4,  # each kind at other rollouts
    "tests/aws/test_roles.py::test_a_role_allows": 3,  # every third strategy
    "tests/aws/test_rollouts.py::test_an_alarm_at_any_step": 2,  # every second, and below …
    "tests/aws/test_rollouts.py::test_an_image_that_cannot": 3,  # … every third strategy
    "tests/aws/test_rollouts.py::test_tasks_that_do_not": 3,
    "tests/aws/test_rollouts.py::test_throttled_calls": 3,
    "tests/engine_surface/test_fuzz.py::test_queries_that_are_out": 2,  # every second
    "tests/engine_surface/test_schema.py::test_the_oldest": 0,  # test_run.py: that client for real
    "tests/faults/test_table.py::test_every": 0,  # tests/delivery/test_faults.py, tests/aws
    "tests/faults/test_table.py::test_the_sample": 0,
    "tests/faults/test_table.py::test_a_release": 0,
    "tests/engine/test_faults.py::test_the_registry_answers_nonsense[500]": 0,  # the other answers
    "tests/engine/test_faults.py::test_the_registry_answers": 2,  # each other of them
    "tests/engine/test_faults.py::test_the_registry_is_cut_in_the_middle_of_a_pull": 0,  # … a push
    "tests/e2e/test_delivery_local.py::test_a_bad_release": 2,  # delivery/test_local.py: unhealthy
    "tests/engine/test_faults.py::test_buildonce_itself": 2,  # busy, or doing nothing
    "tests/engine/test_faults.py::test_a_signal_at_any_moment": 0,  # engine_surface/test_run.py
    "tests/engine/test_remote_cache.py::test_a_fresh_machine_starts_warm": 2,  # registry or folder
    "tests/release/test_evidence.py::test_what_was_tampered": 2,  # e2e/test_tamper
    "tests/toolchain/test_building.py::test_building_for_real": 0,  # make setup builds for real
}


def _mark_long(items: list[pytest.Item]) -> None:
    seen: dict[str, int] = {}
    for item in items:
        for name, kept in LONG.items():
            if item.nodeid.startswith(name):
                number = seen[name] = seen.get(name, -1) + 1
                if not kept or number % kept:
                    item.add_marker(pytest.mark.long)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mark_long(items)
    if not hasattr(config, "workerinput"):
        return  # one process: in the order of their names

    def rank(item: pytest.Item) -> int:
        name = item.path.relative_to(ROOT).as_posix()
        if name in LONGEST:
            return LONGEST.index(name)
        return len(LONGEST) + (not name.startswith("tests/e2e/"))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _no_profile_of_this_machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test` names the machine's profile for pipelines; configurations of tests have none."""
    if "e2e" not in request.path.parts:
        monkeypatch.delenv("BUILDONCE_PROFILE", raising=False)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def go_cache() -> Path:
    """A build cache for Go that is kept: compiling Go's own library takes 20 s of two cores."""
    return places.cache() / "tests" / "go-build"
