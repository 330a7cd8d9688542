"""Delivery to three simulated accounts by the commands themselves: no engine, no containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from buildonce import predicates
from buildonce.config import Config
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Release
from buildonce.release.envelopes import Statement
from buildonce.release.record import cut_release
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from tests.aws.listing import Row, listing
from tests.loopback import free_port
from tests.loopback import registry as serving
from tests.release.conftest import build, push_image

pytestmark = pytest.mark.e2e

_PORTS = ("5090", "5092", "5093", "5094")
_BUILDONCE = Path(sys.executable).parent / "buildonce"


@dataclass
class Accounts:
    """The simulation, running, and who calls it."""

    config: Config
    variables: dict[str, str]
    releases: list[Release]
    ledger: Path

    def buildonce(self, *arguments: str, code: int = 0) -> str:
        """What a command prints; it finds no container runtime and no engine."""
        command = [str(_BUILDONCE), *arguments, "-c", str(self.config.path)]
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def listed(self) -> list[Row]:
        """What runs, by the services' own word."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            return list(listing(self.config))


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("accounts")
    text = Path("ci/pipeline.toml").read_text()
    with serving(folder / "tools") as tools:
        for port in _PORTS:
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
        text = text.replace("127.0.0.1:5080/dashboard", f"{tools}/dashboard")
        # What the policies of this project demand beside a signature, no stand-in release has.
        text = re.sub(r'^policy = "\w+"', 'policy = "default"', text, flags=re.M)
        text = text.replace('"2s"', '"1s"')
        path = folder / "pipeline.toml"
        path.write_text(text)
        variables = {
            "PATH": "/nowhere",
            "HOME": str(folder),
            "BUILDONCE_HOME": str(folder / "home"),
            "BUILDONCE_PROFILE": "aws-simulated",
            "PYTHONPATH": str(Path.cwd()),
        }
        config = Config.load(path, profile="aws-simulated")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDONCE_HOME", variables["BUILDONCE_HOME"])
            releases = anyio.run(_cut, config)
            ledger = config.ledger_path
        simulation = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.aws", "--config", path, "--furnished"),
                *("--speed", "600", "--trail", folder / "trail"),
            ],
            env={**variables, "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert simulation.stdout is not None
            for line in simulation.stdout:
                name, _, value = line.removeprefix("export ").strip().partition("=")
                variables[name] = value
                if name == "AWS_EC2_METADATA_DISABLED":
                    break
            assert "AWS_ACCESS_KEY_ID" in variables, "the simulation did not start"
            yield Accounts(config, variables, releases, ledger)
        finally:
            simulation.terminate()
            simulation.wait()


async def _cut(config: Config) -> list[Release]:
    """Two releases in the tools' registry, and in the ledger."""
    signer = await Signer.configured(config, say=lambda _: None)
    found = []
    async with Registry() as client, Ledger.open(config.ledger_path) as ledger:
        for number in (1, 2):
            repository = config.project.repository
            image = await push_image(client, repository, f"release {number}")
            record, _ = await cut_release(
                image,
                [_tests()],
                version=f"2026.11.2{number}+g{number:07x}",
                revision=f"{number:040x}",
                configuration=build().configuration,
                signer=signer,
                registry=client,
            )
            release = record.release
            data = {**release.to_json(), "committed_at": release.created.isoformat()}
            await ledger.append("release.created", run=new_run_id(), data=data)
            found.append(release)
    return found


def _tests() -> Statement:
    """Evidence that the default policy is content with."""
    passed = {
        "result": "PASSED",
        "configuration": [{"name": "unit_tests"}],
        "passedTests": ["test_one"],
        "warnedTests": [],
        "failedTests": [],
    }
    return Statement(predicates.TEST_RESULT, passed, "unit_tests", datetime.now(UTC))


async def _runs(accounts: Accounts) -> set[str]:
    async with Ledger.open(accounts.ledger) as ledger:
        return {run.id for run in await ledger.runs()}


def _changed_by_roles_named_after_runs(accounts: Accounts) -> None:
    trail = (accounts.config.path.parent / "trail").read_text().splitlines()
    reads = ("Describe", "Get", "List")
    changes = [line for line in trail if not line.rpartition(".")[2].startswith(reads)]
    assert len(changes) > 20
    callers = {line.split()[0] for line in changes}
    account_and_role = {caller.rpartition("/")[0] for caller in callers}
    assert account_and_role == {
        f"arn:aws:sts::{account}:assumed-role/dashboard-deploy"
        for account in ("222222222222", "333333333333")
    }
    runs = anyio.run(_runs, accounts)
    assert {caller.rpartition("/buildonce-")[2] for caller in callers} <= runs


def test_a_release_goes_through_all_accounts_and_regions_as_one_digest(accounts: Accounts) -> None:
    one, two = accounts.releases
    assert "comes after" in accounts.buildonce("promote", one.version, "--to", "live", code=2)
    assert "staging runs" in accounts.buildonce("promote", one.version, "--to", "staging")
    accounts.buildonce("promote", one.version, "--to", "live")
    places = {
        ("222222222222", "eu-west-1"),
        ("333333333333", "eu-west-1"),
        ("333333333333", "us-east-1"),
    }
    rows = accounts.listed()
    assert {(row.account, row.region) for row in rows} == places
    assert {row.digest for row in rows} == {one.image.digest}
    # Each account runs it out of its own registry, not out of that of the tools.
    hosts = {row.account: row.image.partition("/")[0] for row in rows}
    assert len({*hosts.values(), accounts.config.project.repository.partition("/")[0]}) == 3
    assert all(f":assumed-role/dashboard-audit/{'listing'}" in row.caller for row in rows)

    accounts.buildonce("promote", two.version, "--to", "staging")
    accounts.buildonce("promote", two.version, "--to", "live")
    assert {row.digest for row in accounts.listed()} == {two.image.digest}

    accounts.buildonce("rollback", "production")
    rows = accounts.listed()
    assert {row.digest for row in rows if row.account == "333333333333"} == {one.image.digest}
    assert {row.digest for row in rows if row.account == "222222222222"} == {two.image.digest}
    status = json.loads(accounts.buildonce("status", "--json"))
    runs = {one["environment"]: one["version"] for one in status}
    assert runs["production-eu-west-1"] == runs["production-us-east-1"] == one.version
    assert runs["staging"] == two.version
    # Here are no containers, which hides nothing of the accounts.
    assert {one["health"] for one in status if one["environment"] == "development"} == {"unknown"}
    _changed_by_roles_named_after_runs(accounts)


def test_the_stacks_of_every_account_are_as_they_should_be(accounts: Accounts) -> None:
    shown = json.loads(
        accounts.buildonce("env", "plan", "production", "--as", "dashboard-stacks", "--json")
    )
    assert list(shown) == ["production-eu-west-1", "production-us-east-1"]
    for place in shown.values():
        assert [len(stack["changes"]) + len(stack["drift"]) for stack in place["stacks"]] == [0] * 3
