"""What all tests share: asynchronous tests run on asyncio."""

from __future__ import annotations

import signal

import pytest

# Whoever starts the tests in the background has told them to ignore these, and what they start
# would inherit that: tests of what a signal does need it delivered.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL
        )


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
