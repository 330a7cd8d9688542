"""The dashboard over a ledger filled as after a month of work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from starlette.testclient import TestClient

from buildonce.dashboard.app import create_app
from buildonce.dashboard.settings import Settings

from .sample import fill

DIGEST = "sha256:" + "d" * 64


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "ledger.sqlite"
    anyio.run(fill, path, datetime.now(UTC))
    return path


def client_of(ledger: Path | None, environment: str = "production") -> TestClient:
    settings = Settings(
        ledger=ledger,
        version="2026.11.21+gabcdef0",
        revision="abcdef0" * 5,
        digest=DIGEST,
        environment=environment,
    )
    return TestClient(create_app(settings), raise_server_exceptions=False)


@pytest.fixture
def client(filled: Path) -> TestClient:
    return client_of(filled)
