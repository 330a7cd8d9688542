from __future__ import annotations

from collections.abc import Iterator

import pytest

from .simulation import Simulation, retries_wait_by


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    made = Simulation()
    with retries_wait_by(made.clock):
        yield made
