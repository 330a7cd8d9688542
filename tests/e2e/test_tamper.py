"""A signed release, tampered with in every way we know, and a user who wants to deploy it.

One release with all its evidence is signed for the whole file; each test gets a copy in a
repository of its own, tampers with it, and types what a user types. Refused means: exit code 4, a
message of its own, nothing deployed.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest

from buildonce import cli
from buildonce.errors import ExitCode
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Image, Release
from buildonce.release.attached import ATTESTATIONS, attached_tag
from buildonce.release.copy import copy_release
from buildonce.release.models import Record
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.store import Store
from tests.delivery.images import SERVE, push
from tests.loopback import free_port
from tests.loopback import registry as serving
from tests.release import tampering as tampers
from tests.release.conftest import Project, build, config_of, make_signer, release_once
from tests.release.hostile import Fault, faulty, half, html, nothing, retyped, status
from tests.release.policy_samples import POLICIES, evidence
from tests.release.tampering import Tamper, altered

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

BUILDONCE = [sys.executable, "-m", "buildonce"]
_names = itertools.count()


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass
class Shop:
    """A project with a release of its own to tamper with, and a user at its command line."""

    project: Project
    release: Release
    folder: Path
    url: str

    async def types(self, *words: str) -> Said:
        """Type a command; "VERSION" stands for the release."""
        named = [self.release.version if word == "VERSION" else word for word in words]
        done = await anyio.run_process(
            [*BUILDONCE, *named, "--config", "pipeline.toml"],
            cwd=self.folder, check=False,
        )  # fmt: skip
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in said.text, said.text
        return said

    async def asks(self, *words: str) -> Said:
        """As `types`, by the command line's own function in this process: a tenth of the time."""
        out, err = io.StringIO(), io.StringIO()
        named = [self.release.version if word == "VERSION" else word for word in words]
        config = str(self.folder / "pipeline.toml")
        with redirect_stdout(out), redirect_stderr(err):
            code = await anyio.to_thread.run_sync(cli.run, [*named, "--config", config])
        return Said(code, out.getvalue(), err.getvalue())

    async def tries_all(self) -> list[Said]:
        """`deploy`, as it is typed, and `verify`: they come to the same thing."""
        return [
            await self.types("deploy", "production", "--release", "VERSION"),
            await self.asks("verify", "VERSION", "--for", "production"),
        ]

    async def events(self, kind: str) -> list[dict[str, object]]:
        async with Ledger.open(self.folder / "ledger.sqlite") as ledger:
            return [dict(event.data) for event in await ledger.events(kinds=[kind])]

    async def answering(self) -> str | None:
        """The digest that answers in production; None: nobody listens there."""
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return str((await client.get(f"{self.url}/healthz")).json()["digest"])
            except httpx.ConnectError:
                return None

    async def nothing_is_deployed(self) -> bool:
        return await self.answering() is None and not await self.events("rollout.started")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with the key of the project, and no profile."""
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    monkeypatch.delenv("BUILDONCE_PROFILE", raising=False)


@pytest.fixture(scope="module")
def signer(home: Path) -> Signer:
    return make_signer(home)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def released(host: str, signer: Signer, home: Path) -> Record:
    """The release: an image that serves, signed, with everything that the policy wants."""
    repository = f"{host}/team/original"
    image = push(repository, SERVE, tag=secrets.token_hex(8))

    async def cut() -> Record:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDONCE_HOME", str(home))
            async with Store.open(config_of(repository, home)) as store:
                now = datetime.now(UTC)
                record, _ = await store.cut(image, evidence(now), build(started=now))
                return record

    return anyio.run(cut)


@pytest.fixture(scope="module")
def older(host: str, signer: Signer, home: Path) -> Record:
    return release_once(f"{host}/team/older", home, build("2026.11.20+gaaaaaaa"), "older")


@pytest.fixture
async def shop(
    released: Record, older: Record, host: str, signer: Signer, tmp_path: Path,
) -> AsyncIterator[Shop]:  # fmt: skip
    repository = f"{host}/team/copy{next(_names)}"
    async with Registry() as registry:
        record = await copy_release(released, repository, trust=signer.trust, registry=registry)
        yield await open_shop(record, registry, signer, tmp_path, older)


async def open_shop(
    record: Record, registry: Registry, signer: Signer, folder: Path, older: Record
) -> Shop:
    """A checkout whose registry is that of the record, and a ledger that knows the release."""
    repository, port = record.release.image.repository, free_port()
    text = POLICIES.replace("port = 9003", f"port = {port}")
    text += 'smoke_path = "/healthz"\n[ledger]\npath = "ledger.sqlite"\n'
    config = config_of(repository, folder, text)
    (folder / "pipeline.toml").write_text(
        f'[project]\nname = "app"\nrepository = "{repository}"\n{text}'
    )
    data = {**record.release.to_json(), "committed_at": record.release.created.isoformat()}
    async with Ledger.open(folder / "ledger.sqlite") as ledger:
        await ledger.append("release.created", run=new_run_id(), data=data)
    store = Store(config, registry, repository=repository, trust=signer.trust, say=lambda _: None)
    project = Project(store, record.release.image, record, signer, older)
    return Shop(project, record.release, folder, f"http://127.0.0.1:{port}")


async def test_untouched_it_goes_in(shop: Shop) -> None:
    """So that what follows is refused for what was done to it, and for nothing else."""
    try:
        verified = await shop.types("verify", "VERSION", "--for", "production")
        assert (verified.code, "may enter production" in verified.out) == (0, True), verified
        deployed = await shop.types("deploy", "production", "--release", "VERSION")
        assert deployed.code == ExitCode.PASSED, deployed.text
        assert await shop.answering() == shop.release.image.digest
        (decided,) = await shop.events("policy.decided")
        assert (decided["allowed"], decided["policy"]) == (True, "production")
    finally:
        await shop.types("environments", "down", "production")


REFUSED: list[tuple[Tamper, str]] = [
    (tampers.other_image_under_the_tag, r"is no release record"),
    (tampers.record_of_another_version, r"the record of 2026\.11\.20\S+ for .*was moved"),
    (tampers.record_of_another_digest, r"is about another image than it says"),
    (tampers.second_record_of_the_version, r"it differs: digest is sha256:\w+, not sha256:"),
    (tampers.record_removed, r"not to be believed: it has no signature"),
    (tampers.no_signature, r"signature: missing: the digest is not signed"),
    (tampers.signed_by_another_key, r"a signature was signed by another key, sha256:\w+, which"),
    (tampers.signature_of_another_digest, r"of another image, sha256:\w+, and was copied here"),
    (tampers.evidence_of_an_older_release, r"the record of 2026\.11\.20\S+ for .*was moved"),
    (tampers.an_attestation_removed, r"the record lists it \(sha256:\w+\), and it is gone"),
    (tampers.all_attestations_removed, r"test unit_tests: missing: there is none"),
    (tampers.attestation_of_another_digest, r"sbom_image is about another image, sha256:"),
    (altered(b'"jinja2"', b'"jinja3"', resigned=False), r"sbom_image was changed after it was"),
    (altered(b'"PASSED"', b'"passed"', resigned=False), r"unit_tests was changed after it was"),
    (altered(b'"PASSED"', b'"passed"', resigned=True), r"unit_tests was signed by another key"),
    (tampers.a_test_that_failed_later, r"test unit_tests: failed: FAILED: test_a"),
    (tampers.provenance_of_another_repository, r"the source is https://git\.test/evil/app"),
    (tampers.a_key_that_stands_twice, r"not believed: .* it has the key 'payload' twice"),
    (tampers.ten_thousand_attestations, r"is not known, so .*too much lies beside"),
    (tampers.index_in_place_of_the_evidence, r"is not known, so .*is an index, and evidence"),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None) if callable(value) else None


@pytest.mark.parametrize(("tamper", "message"), REFUSED, ids=name_of)
async def test_what_was_tampered_with_is_refused(
    shop: Shop, stranger: Signer, tamper: Tamper, message: str
) -> None:
    await tamper(shop.project, shop.project.store.registry, stranger)
    for said in await shop.tries_all():
        assert said.code == ExitCode.POLICY_DENIED, said
        assert re.search(message, said.text), said
    assert await shop.nothing_is_deployed()


NOT_KNOWN: dict[str, tuple[str, Fault, str]] = {
    "404 by a proxy": ("GET /v2/", html(404), r"answers HTTP 404 .*is it one\?"),
    "404 for the evidence alone": (".att", html(404), r"the evidence of .*HTTP 404"),
    "500": ("GET /v2/", status(500), r"answers HTTP 500"),
    "half a body": ("GET /v2/", half, r"broke off its answer"),
    "nothing": ("GET /v2/", nothing, r"broke off its answer"),
    "a page": ("GET /v2/", html(200), r"cannot be understood"),
    "a manifest of another type": (
        ".att",
        retyped("application/vnd.oci.image.index.v1+json"),
        r"it calls itself .*manifest.v1\+json' and was sent as .*index",
    ),
    "a leap to no address": (
        ".att",
        status(302, Location="file:///etc/passwd"),
        r"what is no address",
    ),
    "its password wanted elsewhere": (
        "GET /v2/",
        status(401, WWW_Authenticate='Bearer realm="http://tokens.example/"'),
        r"wants its password sent without TLS to tokens\.example",
    ),
}


@pytest.mark.parametrize(("where", "fault", "message"), NOT_KNOWN.values(), ids=NOT_KNOWN)
async def test_a_registry_that_does_not_answer_is_refused_and_says_that_nothing_is_known(
    released: Record, host: str, signer: Signer, tmp_path: Path,
    where: str, fault: Fault, message: str,
) -> None:  # fmt: skip
    async with AsyncExitStack() as stack:
        address = stack.enter_context(faulty(host, {where: fault}))
        registry = await stack.enter_async_context(Registry())
        image = Image(f"{address}/team/original", released.release.image.digest)
        there = Record(Release(**{**vars(released.release), "image": image}))
        shop = await open_shop(there, registry, signer, tmp_path, released)
        for said in await shop.tries_all():
            assert said.code == ExitCode.POLICY_DENIED, said
            assert re.search(message, said.text), said
            assert re.search("is not known|nothing is known", said.text), said
            assert "gone" not in said.text
            assert "not signed" not in said.text
        assert await shop.nothing_is_deployed()


async def test_a_leap_to_where_nothing_lies_takes_the_evidence_away(
    released: Record, host: str, signer: Signer, tmp_path: Path
) -> None:
    """A registry that sends us to another one, which says in its own words that it has none."""
    digest = released.release.image.digest
    elsewhere = f"http://{host}/v2/team/nothing/manifests/{attached_tag(digest, ATTESTATIONS)}"
    async with AsyncExitStack() as stack:
        leaping = {".att": status(302, Location=elsewhere)}
        address = stack.enter_context(faulty(host, leaping))
        registry = await stack.enter_async_context(Registry())
        image = Image(f"{address}/team/original", digest)
        there = Record(Release(**{**vars(released.release), "image": image}))
        shop = await open_shop(there, registry, signer, tmp_path, released)
        for said in await shop.tries_all():
            assert said.code == ExitCode.POLICY_DENIED, said
            assert re.search(r"unit_tests: missing: the record lists it .* it is gone", said.text)


async def test_what_moves_between_verify_and_deploy_is_seen(shop: Shop, stranger: Signer) -> None:
    assert (await shop.types("verify", "VERSION", "--for", "production")).code == 0
    registry = shop.project.store.registry
    await tampers.other_image_under_the_tag(shop.project, registry, stranger)
    said = await shop.types("deploy", "production", "--release", "VERSION")
    assert said.code == ExitCode.POLICY_DENIED
    assert "is no release record" in said.text
    assert await shop.nothing_is_deployed()


async def test_evidence_that_expired_is_refused(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(file.read_text().replace('max_age = "7d"', 'max_age = "1s"'))
    for said in await shop.tries_all():
        assert said.code == ExitCode.POLICY_DENIED, said
        assert re.search(r"unit_tests: failed: it expired: .* old, at most 1 s is", said.text)
    explained = await shop.types("explain", "VERSION", "--for", "production")
    assert explained.code == ExitCode.POLICY_DENIED
    assert "    to do:  run the pipeline on this commit again: `make pipeline`" in explained.out
    assert await shop.nothing_is_deployed()


async def test_rubbish_beside_a_release_changes_nothing_and_forges_no_line(
    shop: Shop, stranger: Signer
) -> None:
    registry = shop.project.store.registry
    await tampers.rubbish_beside_it(shop.project, registry, stranger)
    before = {path for path in shop.folder.rglob("*")}
    said = await shop.types("explain", "VERSION", "--for", "production")
    assert said.code == ExitCode.PASSED, said
    assert {path for path in shop.folder.rglob("*")} == before
    notes = [line for line in said.out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert "\x1b" not in said.text
    assert sum("may enter production" in line for line in said.out.splitlines()) == 2
    verdicts = [line for line in said.out.splitlines() if line.startswith("✓ 2026")]
    assert len(verdicts) == 1
    told = json.loads((await shop.types("explain", "VERSION", "--for", "production", "--json")).out)
    assert (told["allowed"], len(told["notes"])) == (True, 2)


async def test_what_is_tampered_with_is_explained_line_by_line(
    shop: Shop, stranger: Signer
) -> None:
    registry = shop.project.store.registry
    await tampers.signed_by_another_key(shop.project, registry, stranger)
    await tampers.an_attestation_removed(shop.project, registry, stranger)
    said = await shop.types("explain", "VERSION", "--for", "production")
    assert said.code == ExitCode.POLICY_DENIED
    assert re.search(r"^✗ signature: failed: a signature was signed by another", said.out, re.M)
    assert re.search(r"^✗ evidence unit_tests: missing: the record lists it", said.out, re.M)
    assert re.search(r"^✓ secrets: nothing found", said.out, re.M)
    assert said.out.count("    wanted: ") == said.out.count("    to do:  ") >= 2
