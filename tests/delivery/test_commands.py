"""The commands as somebody types them, also wrongly; without containers, engine or registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce import cli
from buildonce.config import Config
from buildonce.ledger import Ledger, new_run_id
from tests.samples import release

from .conftest import record

CONFIG = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"

[accounts.live]
id = "111111111111"

[environments.staging]
port = 1
policy = "none"

[environments.production]
port = 2
after = "staging"
policy = "none"
approval = true

[environments.production.rollout]
strategy = "canary"
steps = [10, 50]
interval = "5m"

[[environments.production.windows]]
name = "for ever"
kind = "deny"
start = 2026-01-01T00:00:00
rrule = "FREQ=DAILY"
duration = "24h"

[environments.world]
target = "lambda"
account = "live"
regions = ["eu-west-1", "us-east-1"]
role = "deployer"
policy = "none"

[waves.live]
environments = [["staging"], ["production"]]
"""

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Type a command: exit code, and all that it said."""
    monkeypatch.setenv("BUILDONCE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/pipeline.toml").write_text(CONFIG)

    async def releases() -> None:
        async with Ledger.open(Config.load("ci/pipeline.toml").ledger_path) as ledger:
            for version in ("1", "2"):
                await record(release(version), ledger)

    anyio.run(releases)

    def run(*words: str) -> tuple[int, str]:
        code = cli.run(list(words))
        said = capsys.readouterr()
        return int(code), said.out + said.err

    return run


async def succeeded(version: str, environment: str) -> None:
    """Have the ledger say that it runs there."""
    what, data = release(version), {"rollout": new_run_id(), "environment": environment}
    started: dict[str, Any] = {"version": version, "revision": what.revision}
    started |= {"digest": what.image.digest, "previous_digest": None, "reason": "deploy"}
    ended = {"result": "succeeded", "digest": what.image.digest, "seconds": 1.0}
    async with Ledger.open(Config.load("ci/pipeline.toml").ledger_path) as ledger:
        for kind, more in (("rollout.started", started), ("rollout.finished", ended)):
            await ledger.append(kind, run=new_run_id(), data={**data, **more})


@pytest.mark.parametrize(
    ("words", "says", "tries"),
    [
        ("deploy produktion", "did you mean 'production'", "[environments.produktion]"),
        ("deploy lvie", "did you mean 'live'", "give one of: staging, production, world, live"),
        ("deploy staging --release 9", "knows no release '9'", "buildonce release list"),
        ("promote 2 --to production", "production comes after staging", "buildonce deploy staging"),
        ("promote 2 --to nowhere", "environments has no 'nowhere'", "nowhere"),
        ("rollback staging", "no earlier good release of staging", "buildonce history staging"),
        ("history nowhere", "environments has no 'nowhere'", "nowhere"),
        ("status stagin", "did you mean 'staging'", "stagin"),
        ("resume nowhere", "environments has no 'nowhere'", "nowhere"),
        ("approve production --rollout r9", "production has no rollout 'r9'", "buildonce history"),
        ("approve nowhere", "environments has no 'nowhere'", "nowhere"),
        ("diff staging world", "world is in several regions", "world-eu-west-1, world-us-east-1"),
        ("status --config no.toml", "no.toml cannot be read", "run the command in the folder"),
    ],
)
def test_a_mistake_is_named_with_what_to_type(
    typed: Typed, words: str, says: str, tries: str
) -> None:
    code, said = typed(*words.split())
    assert code == 2, said
    assert says in said
    assert tries in said.partition("try: ")[2]
    assert "Traceback" not in said


def test_a_release_is_called_by_version_commit_digest_or_latest(typed: Typed) -> None:
    two = release("2")
    for name in ("2", two.revision[:9], two.image.digest, two.image.digest[:20], "latest"):
        code, said = typed("approve", "staging", "--release", name)
        assert code == 0 and "approved 2 " in said, name
    # What is too short to be a commit is a version, or nothing.
    assert typed("approve", "staging", "--release", two.revision[:6])[0] == 2


def test_a_word_is_given_and_taken_back_without_being_asked(typed: Typed) -> None:
    code, said = typed("approve", "production", "-r", "2", "--reason", "it is well", "--json")
    given = json.loads(said)
    assert code == 0
    assert (given["kind"], given["environment"]) == ("approval.given", "production")
    assert given["digest"] == release("2").image.digest
    code, said = typed("reject", "production", "-r", "2", "--reason", "the price list")
    assert code == 0 and "refused 2" in said
    code, said = typed("deploy", "production", "--dry-run")
    assert code == 4 and "refused it" in said


def test_of_an_environment_with_regions_each_is_approved(typed: Typed) -> None:
    _, said = typed("approve", "world", "--json")
    assert [one["environment"] for one in json.loads(said)] == [
        "world-eu-west-1",
        "world-us-east-1",
    ]


def test_an_approval_that_nobody_wants_is_said_to_be_none(typed: Typed) -> None:
    assert "staging wants no approval" in typed("approve", "staging")[1]


def test_a_dry_run_says_what_is_in_the_way_and_changes_nothing(typed: Typed) -> None:
    code, said = typed("promote", "latest", "--to", "live", "--dry-run", "--json")
    staging, production = json.loads(said)
    assert code == 4
    assert (staging["environment"], staging["refusals"], staging["steps"]) == ("staging", [], [100])
    assert production["steps"] == [10, 50, 100]
    assert ['"for ever"' in why for why in production["refusals"]] == [True]
    assert production["waits"] == ["1 more to approve"]
    code, said = typed("promote", "latest", "--to", "production", "--dry-run")
    assert code == 4 and "production comes after staging" in said
    assert typed("history", "production") == (0, "nothing was ever deployed to production\n")
    assert typed("deploy", "staging", "--dry-run")[0] == 0


def test_a_dry_run_out_of_order_says_what_else_is_in_the_way(typed: Typed) -> None:
    """An order that is wrong must not hide a closed window, in the same wave or a later one."""
    code, said = typed("promote", "latest", "--to", "production", "--dry-run", "--json")
    (production,) = json.loads(said)
    assert code == 4
    order, window = production["refusals"]
    assert "comes after staging" in order and '"for ever"' in window
    assert production["waits"] == ["1 more to approve"]


def test_history_and_diff_of_what_ran(typed: Typed) -> None:
    for version, environment in (("1", "staging"), ("2", "staging"), ("1", "world-us-east-1")):
        anyio.run(succeeded, version, environment)
    code, said = typed("history", "staging", "--json", "--limit", "1")
    (newest,) = json.loads(said)
    assert (code, newest["version"], newest["shares"]) == (0, "2", [])
    assert "world-us-east-1  1 " in typed("history", "world")[1]
    code, said = typed("diff", "staging", "world-us-east-1")
    assert code == 0
    assert "staging is ahead by 1: 2" in said
    assert "≠ version" in said
