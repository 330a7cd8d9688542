"""What the pages say, and what they do with everything that can be wrong."""

from __future__ import annotations

import re
import sqlite3
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from buildonce.ledger import Ledger

from .conftest import DIGEST, client_of

LISTS = ["/", "/runs", "/rollouts", "/releases", "/metrics-page"]
API = ["/api/environments", "/api/runs", "/api/rollouts", "/api/releases", "/api/metrics"]
VOID = {"meta", "link", "img", "br", "input"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def every_page(client: TestClient) -> list[str]:
    run = client.get("/api/runs").json()["items"][0]["id"]
    rollout = client.get("/api/rollouts").json()["items"][0]["id"]
    release = client.get("/api/releases").json()["items"][0]["version"]
    return [
        *LISTS,
        f"/runs/{run}",
        f"/rollouts/{rollout}",
        f"/releases/{release}",
        "/rollouts?environment=staging",
        "/runs?page=2&limit=5",
        "/nothing-here",
    ]


def test_every_page_is_well_formed_and_can_be_found_one_s_way_in(client: TestClient) -> None:
    for path in every_page(client):
        outline = Outline(client.get(path).text)
        assert len(outline.all("h1")) == len(outline.all("main")) == 1, path
        assert outline.all("html")[0]["lang"] == "en"
        assert all("scope" in header for header in outline.all("th")), path
        assert len(outline.all("caption")) == len(outline.all("table")), path
        ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), path
        labels = [a["aria-labelledby"] for _, a in outline.tags if "aria-labelledby" in a]
        assert set(labels) <= set(ids), path
        assert not outline.all("script")
        assert not any("style" in attributes for _, attributes in outline.tags), path


def test_every_link_leads_somewhere(client: TestClient) -> None:
    seen: set[str] = set()
    waiting = ["/"]
    while waiting and len(seen) < 150:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            for link in Outline(answer.text).all("a"):
                href = link["href"] or ""
                base = path.split("?")[0]
                target = base + href if href.startswith("?") else href
                if not href.startswith("#"):
                    waiting.append(target)
    assert len(seen) > 50


def test_home_names_what_runs_in_each_environment_and_what_differs(client: TestClient) -> None:
    html = client.get("/").text
    answer = client.get("/api/environments").json()
    assert [item["name"] for item in answer["items"]] == ["staging", "production"]
    for item in answer["items"]:
        current = item["current"]
        for fact in (current["version"], current["digest"], current["run"]):
            assert fact in html
    differing = {d["what"] for d in answer["comparison"]["differences"] if d["left"] != d["right"]}
    assert differing == {"version", "revision", "image"}
    assert "Staging is 2 releases ahead" in html


def test_home_says_when_this_process_is_not_what_the_ledger_says(client: TestClient) -> None:
    assert "not what the ledger says" in client.get("/").text
    production = client.get("/api/environments").json()["items"][1]
    assert (production["here"], production["mismatch"]) == (True, DIGEST)


def test_a_run_shows_its_failing_check(client: TestClient) -> None:
    runs = client.get("/api/runs").json()["items"]
    failed = next(run for run in runs if run["result"] == "check-failed")
    html = client.get(f"/runs/{failed['id']}").text
    assert "test_home_names_the_release" in html
    assert "check failed" in html


def test_a_dead_run_is_not_shown_as_passed(client: TestClient) -> None:
    runs = client.get("/api/runs?limit=100").json()["items"]
    dead = [run for run in runs if run["state"] == "unfinished"]
    assert dead
    html = client.get(f"/runs/{dead[0]['id']}").text
    assert "Its process probably died" in html


def test_a_rollout_shows_how_its_answers_were_split(client: TestClient) -> None:
    rollouts = client.get("/api/rollouts?environment=production").json()["items"]
    done = next(rollout for rollout in rollouts if rollout["result"] == "succeeded")
    html = client.get(f"/rollouts/{done['id']}").text
    row = re.search(r"<tr><td[^>]*>10 %</td>(.*?)</tr>", html)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row[1]) == ["402", "10.2 %", "0"]


def test_a_rolled_back_rollout_shows_cause_and_steps(client: TestClient) -> None:
    rollouts = client.get("/api/rollouts").json()["items"]
    back = next(rollout for rollout in rollouts if rollout["result"] == "rolled-back")
    html = client.get(f"/rollouts/{back['id']}").text
    assert "answered 500, expected 200" in html
    for step in ("pulled", "healthy", "restored"):
        assert step in html
    assert back["running_digest"] == back["previous_digest"]


def test_healthz_tells_the_release_it_is(client: TestClient) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "version": "2026.11.21+gabcdef0",
        "revision": "abcdef0" * 5,
        "digest": DIGEST,
        "environment": "production",
    }


@pytest.mark.parametrize("path", [*LISTS, *API, "/healthz", "/nope", "/api/nope", "/runs?page=x"])
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("path", [*LISTS, *API, "/healthz", "/static/style.css"])
def test_reading_is_all_that_can_be_done(client: TestClient, path: str) -> None:
    head = client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert client.request(method, path).status_code == 405, method


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/runs/unknown",
        "/runs/a%20b",
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/" + "a" * 500,
        "/rollouts/%3Cscript%3E",
        "/releases/%00",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
    ],
)
def test_what_is_not_there_is_404_and_is_not_echoed(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "<script>" not in answer.text
    assert "import" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=x", "page=99999999999999", "limit=0", "limit=101", "page=%C2%B2"],
)
@pytest.mark.parametrize("path", ["/runs", "/rollouts", "/releases"])
def test_pages_are_bounded(client: TestClient, path: str, query: str) -> None:
    assert client.get(f"{path}?{query}").status_code == 400
    answer = client.get(f"/api{path}?{query}")
    assert answer.status_code == 400
    assert "must be a number" in answer.json()["error"]


def test_pages_follow_each_other_and_end(client: TestClient) -> None:
    first = client.get("/runs?limit=5").text
    assert 'href="?page=2&amp;limit=5"' in first
    assert "page=0" not in first
    far = client.get("/runs?page=9999")
    assert far.status_code == 200
    assert "no older runs" in far.text


@pytest.mark.parametrize("query", ["days=0", "days=367", "days=a", "environment=a%2Fb"])
def test_metrics_take_only_sensible_windows(client: TestClient, query: str) -> None:
    assert client.get(f"/metrics-page?{query}").status_code == 400
    assert client.get(f"/api/metrics?{query}").status_code == 400


def test_metrics_are_numbers_or_null(client: TestClient) -> None:
    known = client.get("/api/metrics").json()
    assert known["deployments"] > 20
    assert 0 < known["change_failure_rate"] < 1
    assert known["lead_time"] > 0
    assert known["mttr"] > 0
    unknown = client.get("/api/metrics?environment=nowhere").json()
    for name in ("lead_time", "deployment_frequency", "change_failure_rate", "mtbf", "mttr"):
        assert unknown[name] is None


def test_the_stylesheet_is_cached_by_its_content(client: TestClient) -> None:
    link = next(a["href"] for a in Outline(client.get("/").text).all("link"))
    answer = client.get(link or "")
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]


NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7919*6101}}\u202e\x00&amp;"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A ledger where every text that anyone else may choose is an attack."""
    path = tmp_path / "ledger.sqlite"
    identity = {"version": "v1", "revision": NASTY}
    deploy = {"rollout": "r1", "environment": "staging"}
    commit = {"stage": NASTY, "result": "failed", "seconds": 1, "cached": False, "summary": NASTY}
    events: list[tuple[str, dict[str, Any]]] = [
        ("run.started", {**identity, "pipeline": NASTY, "actor": NASTY}),
        ("stage.started", {"stage": NASTY}),
        ("check.finished", {**commit, "check": NASTY}),
        ("stage.finished", commit),
        (
            "release.created",
            {
                **identity,
                "digest": DIGEST,
                "repository": NASTY,
                "configuration": NASTY,
                "committed_at": "2026-01-01T00:00:00+00:00",
            },
        ),
        (
            "rollout.started",
            {**identity, **deploy, "digest": DIGEST, "previous_digest": None, "reason": "deploy"},
        ),
        ("rollout.step", {**deploy, "step": NASTY, "data": {NASTY: [NASTY], "b": {NASTY: None}}}),
        (
            "rollout.finished",
            {**deploy, "result": "failed", "digest": None, "seconds": 1, "cause": NASTY},
        ),
    ]

    async def main() -> None:
        async with Ledger.open(path) as ledger:
            for kind, data in events:
                await ledger.append(kind, run="run1", data=data)

    anyio.run(main)
    return path


@pytest.mark.parametrize(
    "path", [*LISTS, "/runs/run1", "/rollouts/r1", "/releases/v1", "/rollouts?environment=staging"]
)
def test_hostile_names_stay_text(hostile: Path, path: str) -> None:
    answer = client_of(hostile).get(path)
    assert answer.status_code == 200
    outline = Outline(answer.text)
    assert not outline.all("script")
    assert all(image["src"] == "/static/icon.svg" for image in outline.all("img"))
    assert not any(name.startswith("on") for _, a in outline.tags for name in a)
    assert "{{7919*6101}}" in outline.text or "alert" not in outline.text
    assert "48313819" not in outline.text  # what a template would make of it


@pytest.mark.parametrize("path", API)
def test_hostile_names_are_data_in_json(hostile: Path, path: str) -> None:
    answer = client_of(hostile).get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [*LISTS, *API, "/healthz"])
def test_an_absent_ledger_is_no_failure(tmp_path: Path, path: str) -> None:
    for ledger in (None, tmp_path / "none.sqlite", tmp_path / "no" / "folder.sqlite"):
        assert client_of(ledger).get(path).status_code == 200


def test_an_empty_ledger_says_what_to_do(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.sqlite").close()
    html = client_of(tmp_path / "ledger.sqlite", environment="").get("/").text
    assert "Nothing has been deployed yet" in html
    assert "make pipeline" in html


def test_a_ledger_that_comes_later_is_seen(tmp_path: Path, filled: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    client = client_of(path)
    assert client.get("/api/runs").json()["items"] == []
    path.write_bytes(filled.read_bytes())
    assert len(client.get("/api/runs").json()["items"]) == 25


@pytest.mark.parametrize("path", [*LISTS, "/runs/run1"])
def test_a_damaged_ledger_is_named_with_its_remedy(tmp_path: Path, path: str) -> None:
    ledger = tmp_path / "ledger.sqlite"
    ledger.write_bytes(b"not a database at all " * 1000)
    client = client_of(ledger)
    answer = client.get(path)
    assert answer.status_code == 503
    assert "damaged or not a ledger" in answer.text
    assert "mv " in answer.text
    assert client.get("/healthz").status_code == 503
    assert client.get("/healthz").json()["version"] == "2026.11.21+gabcdef0"
    assert client.get("/api/runs").json()["remedy"]


def test_a_locked_ledger_is_said_to_be_locked(
    tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildonce.ledger.sqlite.READ_PATIENCE", 0.1)
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(filled.read_bytes())
    client = client_of(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    answer = client.get("/")
    assert answer.status_code == 503
    assert "locked by another process" in answer.text
    assert answer.headers["retry-after"] == "2"
    holder.close()
    assert client.get("/").status_code == 200


def test_the_dashboard_changes_nothing(tmp_path: Path, filled: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(filled.read_bytes())
    path.chmod(stat.S_IRUSR)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    client = client_of(path)
    for page in every_page(client):
        client.get(page)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_bug_is_a_plain_500_with_the_headers(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret cause")

    monkeypatch.setattr("buildonce.dashboard.pages.environments", broken)
    answer = client_of(filled).get("/")
    assert answer.status_code == 500
    assert "secret cause" not in answer.text
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("path", "key"), [("runs", "id"), ("rollouts", "id"), ("releases", "version")]
)
def test_one_of_each_is_what_its_list_holds(client: TestClient, path: str, key: str) -> None:
    item = client.get(f"/api/{path}").json()["items"][0]
    assert client.get(f"/api/{path}/{item[key]}").json() == item
    missing = client.get(f"/api/{path}/unknown")
    assert missing.status_code == 404
    assert missing.json()["error"]
