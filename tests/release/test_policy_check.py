"""Policies asked against a real registry: what lies there is all that counts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.advisories import Database, open_database
from buildonce.config import Config
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger, Rollout, new_run_id
from buildonce.release.attached import ATTESTATIONS, read_attached
from buildonce.release.copy import copy_release
from buildonce.release.models import Image, Record, Release
from buildonce.release.policy import Decision, PolicyDenied
from buildonce.release.policy_check import PolicyUndecided, examine, time_in, verifier
from buildonce.release.policy_rescan import rescan
from buildonce.release.policy_withdrawal import Desk, NotWithdrawn, reinstate, withdraw
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.store import Store

from .conftest import build, config_of, push_image
from .hostile import faulty, half, html, nothing, status
from .policy_samples import POLICIES, evidence
from .tampering import lay

pytestmark = pytest.mark.anyio


@dataclass
class Shop:
    """A project with policies and one release that satisfies them."""

    config: Config
    ledger: Ledger
    registry: Registry
    store: Store
    release: Release
    signer: Signer

    @property
    def desk(self) -> Desk:
        return Desk(self.config, self.ledger, self.registry, new_run_id())

    async def ask(self, environment: str = "production", **options: Any) -> Decision:
        return await examine(
            self.release,
            environment,
            config=self.config,
            ledger=self.ledger,
            registry=self.registry,
            **options,
        )

    async def deploy(self, environment: str = "production", **options: Any) -> None:
        verify = verifier(self.config, ledger=self.ledger, run=new_run_id(), **options)
        await verify(self.release, self.config.environment(environment))


@pytest.fixture(scope="session")
def released(
    host: str, signer: Signer, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Record:
    """A release, signed once; every test gets a copy of its own."""

    async def cut() -> Record:
        repository = f"{host}/team/policed"
        config = config_of(repository, tmp_path_factory.mktemp("released"), POLICIES)
        now = datetime.now(UTC)
        async with Registry() as registry:
            store = Store(config, registry, repository=repository, trust=None, say=lambda _: None)
            image = await push_image(registry, repository)
            record, _ = await store.cut(image, evidence(now, "3.1.2"), build(started=now))
            return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDONCE_HOME", str(home))
        return anyio.run(cut)


@pytest.fixture
async def shop(
    released: Record,
    repository: str,
    signer: Signer,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
) -> AsyncIterator[Shop]:
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    config = config_of(repository, tmp_path, POLICIES)
    store = Store(config, registry, repository=repository, trust=None, say=lambda _: None)
    record = await copy_release(released, repository, trust=signer.trust, registry=registry)
    async with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield Shop(config, ledger, registry, store, record.release, signer)


async def test_a_release_with_its_evidence_may_enter(shop: Shop) -> None:
    decision = await shop.ask()
    assert decision.allowed, decision.failing
    await shop.deploy()
    (event,) = await shop.ledger.events(kinds=["policy.decided"])
    assert event.data["allowed"] is True
    assert (event.data["environment"], event.data["policy"]) == ("production", "production")


async def test_no_policy_asks_nothing_of_nobody(shop: Shop) -> None:
    gone = replace(shop.release, image=Image("127.0.0.1:9/nowhere", shop.release.image.digest))
    decision = await examine(
        gone, "development", config=shop.config, ledger=None, registry=shop.registry
    )
    assert decision.allowed


async def test_a_denial_is_recorded_with_its_lines(shop: Shop) -> None:
    other = await push_image(shop.registry, shop.release.image.repository, "another")
    shop.release = replace(shop.release, image=other)
    with pytest.raises(PolicyDenied) as denied:
        await shop.deploy()
    assert denied.value.exit_code == ExitCode.POLICY_DENIED
    assert "signature: missing: the digest is not signed" in denied.value.message
    (event,) = await shop.ledger.events(kinds=["policy.decided"])
    assert event.data["allowed"] is False
    assert event.data["lines"][0]["what"] == "signature"


@pytest.mark.parametrize(
    "fault", [html(404), status(500), half, nothing], ids=["404", "500", "half", "nothing"]
)
async def test_a_registry_that_does_not_answer_decides_nothing(shop: Shop, fault: Any) -> None:
    repository = shop.release.image.repository
    with faulty(repository.partition("/")[0], {"GET /v2/": fault}) as address:
        image = Image(f"{address}/{repository.partition('/')[2]}", shop.release.image.digest)
        release = replace(shop.release, image=image)
        with pytest.raises(PolicyUndecided) as undecided:
            await examine(
                release, "production", config=shop.config, ledger=None, registry=shop.registry
            )
    assert undecided.value.exit_code == ExitCode.POLICY_DENIED
    assert "is not known" in undecided.value.message


async def test_a_policy_trusts_the_keys_that_it_names(
    shop: Shop, stranger: Signer, tmp_path: Path
) -> None:
    (tmp_path / "theirs.pub").write_text(stranger.trust.keys[0].pem)
    (tmp_path / "ours.pub").write_text(shop.signer.trust.keys[0].pem)
    for keys, allowed in (
        (["theirs.pub"], False),
        (["theirs.pub", "ours.pub"], True),
    ):
        policy = f"[policies.production]\nsignature = {{ keys = {json.dumps(keys)} }}\n"
        text = POLICIES.replace("[policies.production]\n", policy)
        shop.config = config_of(shop.release.image.repository, tmp_path, text)
        decision = await shop.ask()
        assert decision.allowed is allowed
    assert shop.config.policies["production"].signature.keys


async def test_withdrawn_by_hand_it_may_enter_nowhere_until_it_is_reinstated(shop: Shop) -> None:
    await withdraw(shop.release, reason="it loses orders", by="ann", desk=shop.desk)
    for environment in ("staging", "production"):
        (line,) = (await shop.ask(environment)).failing
        assert "by ann: it loses orders" in line.found
    # Not even back to it.
    with pytest.raises(PolicyDenied, match="it loses orders"):
        await shop.deploy(reason="rollback")
    await reinstate(shop.release, reason="it was the database", by="bob", desk=shop.desk)
    assert (await shop.ask()).allowed
    await shop.deploy(reason="rollback")
    with pytest.raises(NotWithdrawn):
        await reinstate(shop.release, reason="once more", by="bob", desk=shop.desk)
    states = [e.data["state"] for e in await shop.ledger.events(kinds=["release.status"])]
    assert states == ["withdrawn", "reinstated"]


async def test_who_deletes_a_withdrawal_is_found_out(shop: Shop, tmp_path: Path) -> None:
    before = await read_attached(shop.registry, shop.release.image, ATTESTATIONS)
    await withdraw(shop.release, reason="it loses orders", by="ann", desk=shop.desk)
    withdrawn = await read_attached(shop.registry, shop.release.image, ATTESTATIONS)
    await lay(shop.registry, shop.release.image, ATTESTATIONS, before)
    # A machine that has seen it:
    (line,) = (await shop.ask()).failing
    assert (line.what, line.state) == ("status", "error")
    assert "a status was removed" in line.found
    # One that never did believes it for as long as the policy allows: status_max_age.
    options: Any = {"config": shop.config, "ledger": None, "registry": shop.registry}
    assert (await examine(shop.release, "production", **options)).allowed
    text = POLICIES.replace("max_age =", 'status_max_age = "1d"\nmax_age =', 1)
    options["config"] = config_of(shop.release.image.repository, tmp_path, text)
    later = datetime.now(UTC) + timedelta(days=2)
    assert (await examine(shop.release, "production", **options)).allowed
    (line,) = (await examine(shop.release, "production", now=later, **options)).failing
    assert "found good" in line.found
    # Anything written after it names it, so then every machine knows.
    await lay(shop.registry, shop.release.image, ATTESTATIONS, withdrawn)
    await reinstate(shop.release, reason="it was the database", by="bob", desk=shop.desk)
    after = await read_attached(shop.registry, shop.release.image, ATTESTATIONS)
    await lay(shop.registry, shop.release.image, ATTESTATIONS, [*before, after[-1]])
    (line,) = (await examine(shop.release, "production", **options)).failing
    assert "a status was removed" in line.found


async def test_a_status_by_another_key_changes_nothing(
    shop: Shop, stranger: Signer, tmp_path: Path
) -> None:
    desk = replace(shop.desk, made=[stranger])
    with pytest.raises(BuildonceError, match="not signed by the key that would sign its status"):
        await withdraw(shop.release, reason="out of spite", by="eve", desk=desk)
    assert (await shop.ask()).allowed


def published(folder: Path, *packages: str) -> Database:
    """An advisory database in which each of these packages has a flaw, told just now."""
    records = [
        {
            "id": f"CVE-2026-{number}",
            "modified": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "summary": "it can be entered",
            "severity": [
                {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
            ],
            "affected": [
                {
                    "package": {"ecosystem": "PyPI", "name": name},
                    "ranges": [
                        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.1"}]}
                    ],
                }
            ],
        }
        for number, name in enumerate(packages, 1000)
    ]
    archive = folder / "osv-scanner" / "PyPI" / "all.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for record in records:
            opened.writestr(f"{record['id']}.json", json.dumps(record))
    return Database.open(folder)


async def test_a_new_advisory_withdraws_where_it_breaks_the_policy(
    shop: Shop, tmp_path: Path
) -> None:
    options: Any = {"desk": shop.desk, "by": "ann (rescan)"}
    result = await rescan(shop.release, database=published(tmp_path / "db", "django"), **options)
    assert [(v.environment, v.state) for v in result.verdicts] == [("production", "good")]
    assert (await shop.ask()).allowed
    database = published(tmp_path / "db", "django", "jinja2")
    result = await rescan(shop.release, database=database, **options)
    (verdict,) = result.verdicts
    assert (verdict.state, result.good) == ("withdrawn", False)
    assert str(verdict.advisories[0]) == "CVE-2026-1001 (critical) in jinja2 3.1.2, fixed in 9.1"
    (line,) = (await shop.ask()).failing
    assert line.what == "status"
    assert "advisories that became known after it was released: CVE-2026-1001" in line.found
    # Only where the policy speaks of vulnerabilities; and the way back stays open.
    assert (await shop.ask("staging")).allowed
    await shop.deploy(reason="rollback")
    # Asked again it says the same and writes nothing.
    again = await rescan(shop.release, database=database, **options)
    assert [verdict.state for verdict in again.verdicts] == ["still-withdrawn"]
    assert len(await shop.ledger.events(kinds=["release.status"])) == 1
    # A waiver keeps a later advisory from withdrawing; it lifts nothing that is withdrawn.
    waiver = (
        '[[waivers]]\ncheck = "sca"\nid = "CVE-2026-1001"\nreason = "not reachable"\n'
        "expires = 2099-01-01\n"
    )
    shop.config = config_of(shop.release.image.repository, tmp_path, POLICIES + waiver)
    options["desk"] = shop.desk
    again = await rescan(shop.release, database=database, **options)
    assert [verdict.state for verdict in again.verdicts] == ["still-withdrawn"]
    await reinstate(shop.release, reason="not reachable", by="bob", desk=shop.desk)
    again = await rescan(shop.release, database=database, **options)
    assert again.good
    assert (await shop.ask()).allowed


async def test_a_rescan_without_an_sbom_says_that_it_knows_nothing(
    shop: Shop, tmp_path: Path
) -> None:
    other = await push_image(shop.registry, shop.release.image.repository, "another")
    result = await rescan(
        replace(shop.release, image=other),
        database=published(tmp_path / "db", "django"),
        desk=shop.desk,
        by="ann",
    )
    assert [verdict.state for verdict in result.verdicts] == ["unknown"]
    assert not result.good


async def test_a_rescan_says_good_when_the_policy_wants_to_hear_so(shop: Shop) -> None:
    database = open_database(shop.config.advisories, near=shop.config.path)
    text = POLICIES.replace("max_age =", 'status_max_age = "1d"\nmax_age =', 1)
    shop.config = config_of(shop.release.image.repository, shop.config.path.parent, text)
    now = datetime.now(UTC)
    for moment, statuses in (
        (now, 1),
        (now + timedelta(hours=1), 1),  # too soon for another
        (now + timedelta(hours=13), 2),
    ):
        await rescan(shop.release, database=database, desk=shop.desk, by="cron", now=moment)
        assert len(await shop.ledger.events(kinds=["release.status"])) == statuses
    assert (await shop.ask(now=now + timedelta(hours=36))).allowed
    assert not (await shop.ask(now=now + timedelta(hours=38))).allowed


def rollout(digest: str, start: datetime, result: str = "succeeded") -> Rollout:
    finished = start + timedelta(minutes=1)
    return Rollout(
        id="r", run="r", environment="staging", version="1", revision="", digest=digest,
        previous_digest=None, reason="deploy", started=start, finished=finished, result=result,
        state=result, seconds=60.0, cause=None, running_digest=digest, steps=(),
    )  # fmt: skip


def test_how_long_a_digest_ran() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    one, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    rollouts = [
        rollout(one, now - timedelta(hours=10)),
        rollout(other, now - timedelta(hours=8)),
        rollout(one, now - timedelta(hours=1)),
    ]
    assert time_in(one, rollouts, now) == timedelta(hours=2, minutes=59)
    assert time_in(other, list(reversed(rollouts)), now) == timedelta(hours=7)
    assert time_in("sha256:" + "3" * 64, rollouts, now) is None
    # A release that was rolled back from never counted as running.
    failed = replace(rollout(other, now - timedelta(minutes=30), "rolled-back"), running_digest=one)
    assert time_in(other, [*rollouts[:1], failed], now) is None
