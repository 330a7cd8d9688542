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


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
