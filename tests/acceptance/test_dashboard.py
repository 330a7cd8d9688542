"""The deployed dashboard as its users see it. The pipeline says where it is, in BASE_URL."""

from __future__ import annotations

import os

import httpx
import pytest

pytestmark = pytest.mark.skipif("BASE_URL" not in os.environ, reason="no deployment in BASE_URL")


@pytest.fixture
def browser() -> httpx.Client:
    return httpx.Client(base_url=os.environ["BASE_URL"], trust_env=False, timeout=10)


@pytest.mark.safe
def test_health_names_the_release_that_was_deployed(browser: httpx.Client) -> None:
    health = browser.get("/healthz").json()
    assert health["status"] == "ok"
    # DEPLOYMENT begins with the digest that the pipeline deployed.
    assert health["digest"] == os.environ["DEPLOYMENT"].split()[0]
    assert len(health["revision"]) == 40
    assert health["version"]


@pytest.mark.safe
def test_the_front_page_shows_the_environment_it_runs_in(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    environment = browser.get("/healthz").json()["environment"]
    assert environment in page.text


@pytest.mark.safe
def test_history_is_there(browser: httpx.Client) -> None:
    for path in ("/runs", "/rollouts", "/releases"):
        assert browser.get(path).status_code == 200
    rollouts = browser.get("/api/rollouts").json()["items"]
    here = browser.get("/healthz").json()["environment"]
    assert any(rollout["environment"] == here for rollout in rollouts)


def test_it_is_read_only_and_says_so_politely(browser: httpx.Client) -> None:
    assert browser.post("/api/runs", json={}).status_code == 405
    missing = browser.get("/no-such-page")
    assert missing.status_code == 404
    assert "Traceback" not in missing.text


@pytest.mark.safe
def test_pages_may_not_be_framed_or_sniffed(browser: httpx.Client) -> None:
    headers = browser.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers
