"""This project's own pipeline, from a commit to production: engine, registry, containers, proxy.

Each test goes on where the one before it ended, as the days of a project do. Everything is in a
folder of its own but for the engine's binaries and cache.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from buildonce.errors import ExitCode
from tests.delivery.load import Seen, load
from tests.e2e.shop import BUILDONCE, Ran, Shop, opened_shop
from tests.release.published import check_published

pytestmark = [pytest.mark.e2e]

ENVIRONMENTS = ("staging", "pilot", "production")


def little_to_check(text: str) -> str:
    """The waits are to be the pipeline's."""
    for old, new in (
        ('["tests/dashboard", "tests/ledger"]', '["tests/dashboard/test_formatting.py"]'),
        ('["buildonce.dashboard", "buildonce.ledger"]', '["buildonce.dashboard.formatting"]'),
        ('budget = "5m"', 'budget = "20m"'),  # other tests run beside this one
    ):
        assert old in text, f"ci/pipeline.toml has changed: {old}"
        text = text.replace(old, new)
    # What a rollout looks at, and for how long, has tests of its own.
    text = re.sub(r'= "[23]s"', '= "1s"', text)
    for check in ("format_and_lint", "type_check", "code_quality", "sast"):
        table = f'[checks.{check}]\npaths = ["src/buildonce/dashboard"]\n'
        text, found = re.subn(rf"\[checks\.{check}\]\npaths = .*\n", table, text)
        text += "" if found else f"\n{table}"
    return text


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with opened_shop(tmp_path_factory.mktemp("shop"), configured=little_to_check) as shop:
        yield shop


@pytest.fixture(scope="module")
def shipped(shop: Shop) -> Ran:
    """The first run."""
    return shop.run().must(ExitCode.PASSED)


def test_a_commit_goes_to_production(shop: Shop, shipped: Ran) -> None:
    release = shipped.summary["release"]
    reference = f"http://{shop.registry}/v2/dashboard/manifests/{release['digest']}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    held = httpx.head(reference, headers=accept, trust_env=False)
    assert held.headers["docker-content-digest"] == release["digest"]
    for environment in ENVIRONMENTS:
        assert shop.digest(environment) == release["digest"]
        assert f"{shop.url(environment)}  deployed" in shipped.screen
    for stage in shipped.summary["stages"]:
        assert stage["result"] == "passed"
    for file in shipped.summary["files"]:
        assert (shop.root / file).is_file()
    assert "out/unit_tests/coverage.xml" in shipped.summary["files"]
    assert [e.data["result"] for e in shop.events() if e.kind == "run.finished"] == ["passed"]


def test_development_is_never_deployed_by_the_pipeline(shop: Shop, shipped: Ran) -> None:
    touched = {e.data["environment"] for e in shop.events() if e.kind == "rollout.started"}
    assert touched == set(ENVIRONMENTS)


def test_plain_cosign_accepts_all_that_a_run_signed(
    shop: Shop, shipped: Ran, tmp_path: Path
) -> None:
    """Outside our code, every signature and every attestation."""
    command = [*BUILDONCE, "release", "show", "latest", "--json"]
    shown = json.loads(subprocess.check_output(command, cwd=shop.root, env=shop.variables))
    assert shown["digest"] == shipped.summary["release"]["digest"]
    repository = shown["repository"]
    names = check_published(
        f"{repository}@{shown['digest']}",
        f"{repository}@{shown['record']}",
        shown["version"],
        (item["type"] for item in shown["evidence"]),
        key=shop.home / "keys/dashboard/release.pub",
        folder=tmp_path,
    )
    assert names == sorted(item["name"] for item in shown["evidence"])
    assert {"provenance", "sast", "sbom_image", "sbom_python", "sca", "unit_tests"} <= set(names)


def test_what_policies_said_is_in_the_ledger(shop: Shop, shipped: Ran) -> None:
    decided = [e.data for e in shop.events() if e.kind == "policy.decided"]
    asked = {(one["environment"], one["policy"], one["allowed"]) for one in decided}
    assert asked == {
        ("staging", "staging", True),
        ("pilot", "production", True),
        ("production", "production", True),
    }


def test_evidence_that_was_taken_away_stops_the_next_run(shop: Shop, shipped: Ran) -> None:
    digest = shipped.summary["release"]["digest"]
    place = f"http://{shop.registry}/v2/dashboard/manifests/{digest.replace(':', '-')}.att"
    kind = "application/vnd.oci.image.manifest.v1+json"
    kept = httpx.get(place, headers={"Accept": kind}, trust_env=False).raise_for_status().content
    less = json.loads(kept)
    del less["layers"][0]

    def put(content: bytes) -> None:
        headers = {"Content-Type": kind}
        httpx.put(place, content=content, headers=headers, trust_env=False).raise_for_status()

    put(json.dumps(less).encode())
    try:
        ran = shop.run().must(ExitCode.POLICY_DENIED)
    finally:
        put(kept)
    assert re.search(r"evidence of \S+ is missing: \w+: is not there; it was removed", ran.screen)
    assert not ran.summary["rollouts"]


def test_the_same_commit_again_runs_nothing(shop: Shop, shipped: Ran) -> None:
    again = shop.run().must(ExitCode.PASSED)
    assert again.executed == []
    assert set(again.cached.values()) == {True}
    assert again.summary["release"]["digest"] == shipped.summary["release"]["digest"]
    assert not any(rollout["changed"] for rollout in again.summary["rollouts"])


def test_a_pull_request_is_checked_as_a_commit_is_and_leaves_nothing(
    shop: Shop, shipped: Ran
) -> None:
    tags, events = shop.tags(), shop.events()
    shop.commit("src/buildonce/dashboard/formatting.py", f"\n\nPROPOSED = {time.time_ns()}\n")
    ran = shop.run("--pull-request").must(ExitCode.PASSED)
    (stage,) = ran.summary["stages"]
    assert [check["check"] for check in stage["checks"]] == [
        check["check"] for check in shipped.summary["stages"][0]["checks"]
    ]
    assert ran.cached["unit_tests"] is False
    assert ran.summary["release"] is None
    assert shop.tags() == tags
    new = {event.kind for event in shop.events()[len(events) :]}
    assert new == {
        "run.started",
        "stage.started",
        "check.finished",
        "stage.finished",
        "run.finished",
    }
    shop.git("reset", "--quiet", "--hard", "HEAD~1")


def test_a_change_of_no_source_runs_no_check_again(shop: Shop, shipped: Ran) -> None:
    shop.commit("CONTRIBUTING.md", "\nOne more line.\n")
    ran = shop.run().must(ExitCode.PASSED)
    commit = [check["check"] for check in ran.summary["stages"][0]["checks"]]
    commit.remove("secrets")  # a commit is searched, whatever it changes
    assert {name: ran.cached[name] for name in commit} == dict.fromkeys(commit, True)
    assert ran.summary["release"]["digest"] == shipped.summary["release"]["digest"]


def test_one_line_of_the_dashboard_goes_to_production_without_a_failed_request(
    shop: Shop, shipped: Ran
) -> None:
    before = shop.digest("production")
    # A line that this machine's engine has never seen: it keeps what earlier runs have made.
    shop.commit("src/buildonce/dashboard/formatting.py", f"\n\nANSWER = {time.time_ns()}\n")

    async def deliver() -> tuple[Ran, Seen]:
        async with load(f"{shop.url('production')}/healthz", rate=100) as seen:
            ran = await anyio.to_thread.run_sync(shop.run)
        return ran, seen

    ran, seen = anyio.run(deliver)
    ran.must(ExitCode.PASSED)
    after = ran.summary["release"]["digest"]
    assert seen.failures == []
    assert (seen.order[0], seen.order[-1]) == (before, after)
    assert {shop.digest(name) for name in ENVIRONMENTS} == {after} != {before}
    # The report has how the answers were split at each step: within 3 points, and one answer.
    rollouts = {rollout["environment"]: rollout for rollout in ran.summary["rollouts"]}
    shares = rollouts["production"]["shares"]
    assert [share["percent"] for share in shares] == [10, 50, 100]
    for share in shares:
        near = 3 + 100 / (share["new"] + share["old"])
        assert share["measured"] == pytest.approx(share["percent"], abs=near)
        assert share["failed"] == 0
    assert "answers by the new release: " in ran.screen
    # Dependencies are not installed again, neither for the tools nor in the image.
    assert ran.installed == []
    assert ran.cached["unit_tests"] is ran.cached["build_image"] is False


def test_a_failing_unit_test_is_named_and_nothing_leaves(shop: Shop, shipped: Ran) -> None:
    before = {name: shop.digest(name) for name in ENVIRONMENTS}
    tags, rollouts = shop.tags(), [e for e in shop.events() if e.kind == "rollout.started"]
    test = "\n\ndef test_broken_on_purpose() -> None:\n    assert formatting.duration(1) == ''\n"
    shop.commit("tests/dashboard/test_formatting.py", test)
    ran = shop.run().must(ExitCode.CHECK_FAILED)
    named = "tests/dashboard/test_formatting.py::test_broken_on_purpose"
    assert named in "\n".join(ran.screen.splitlines()[-10:])
    assert "nothing was pushed, nothing was deployed" in ran.screen
    assert "Traceback" not in ran.screen
    assert shop.tags() == tags
    assert [e for e in shop.events() if e.kind == "rollout.started"] == rollouts
    assert {name: shop.digest(name) for name in ENVIRONMENTS} == before
    # The tests alone have changed: types and image are as they were.
    assert ran.cached["type_check"] is True
    shop.git("revert", "--no-edit", "HEAD")


def test_what_failed_is_tried_again_although_the_engine_has_kept_it(
    shop: Shop, shipped: Ran
) -> None:
    test = "\n\ndef test_broken_too() -> None:\n    assert formatting.duration(2) == ''\n"
    shop.commit("tests/dashboard/test_formatting.py", test)
    for _ in range(2):
        assert shop.run().must(ExitCode.CHECK_FAILED).cached["unit_tests"] is False
    shop.git("revert", "--no-edit", "HEAD")


def test_a_failing_smoke_test_puts_staging_back_and_leaves_production(
    shop: Shop, shipped: Ran
) -> None:
    before = {name: shop.digest(name) for name in ENVIRONMENTS}
    home = "async def home(request: Request) -> Response:\n    settings = settings_of(request)\n"
    broken = (
        '    if settings.environment == "staging":\n'
        '        raise RuntimeError("broken on purpose")\n'
    )
    shop.commit("src/buildonce/dashboard/pages.py", home + broken, replacing=home)
    ran = shop.run().must(ExitCode.ROLLED_BACK)
    assert "rolled back" in ran.screen
    assert "500" in ran.screen
    assert {name: shop.digest(name) for name in ENVIRONMENTS} == before
    ends = [e.data for e in shop.events() if e.kind == "rollout.finished"]
    assert ends[-1]["result"] == "rolled-back"
    assert ends[-1]["environment"] == "staging"
    assert ends[-1]["digest"] == before["staging"]
    assert shop.events()[-1].data["result"] == "rolled-back"
    shop.git("revert", "--no-edit", "HEAD")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_the_next_one_passes(
    shop: Shop, shipped: Ran, number: signal.Signals
) -> None:
    shop.commit("tests/dashboard/test_formatting.py", f"\n# {number.name}\n")
    began, runs = time.monotonic(), shop.runs()
    process = shop.start()
    # Before that, Python is loading modules and there is nothing to put back.
    while shop.runs() == runs and process.poll() is None:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    ran = shop.end(process, began)
    assert ran.code == ExitCode.INTERRUPTED, ran.screen + ran.progress
    assert "Traceback" not in ran.screen + ran.progress
    assert shop.events()[-1].data["result"] == "interrupted"
    ran = shop.run().must(ExitCode.PASSED)
    # A test is no part of the image, and needs nothing that was not there.
    assert ran.cached["build_image"] is True
    assert ran.installed == []


ALONE = """
import anyio, dagger, sys
from dagger import dag
from buildonce.stages import python_environment, unit_tests

async def main() -> None:
    async with dagger.connection():
        source = dag.host().directory(".", gitignore=True)
        tools = python_environment(
            dag.container().from_(sys.argv[1]), source.file("requirements/dev.txt"))
        tests = ["tests/dashboard/test_formatting.py"]
        print((await unit_tests(source, tools, paths=tests)).summary)

anyio.run(main)
"""


def test_a_stage_is_of_use_alone(shop: Shop, shipped: Ran) -> None:
    from buildonce.config import Config

    config = Config.load(
        shop.root / "ci/pipeline.toml", profile=shop.variables.get("BUILDONCE_PROFILE")
    )
    (shop.root / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [*BUILDONCE, "run", sys.executable, "alone.py", config.image("python")],
        cwd=shop.root, env=shop.variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ tests passed, coverage", done.stdout)
