"""What all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from buildonce import places

# How fast this machine is just now is no property of the code.
settings.register_profile("any-machine", deadline=None)
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
