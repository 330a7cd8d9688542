"""Evidence crosses accounts: between real registries, one of each account, on the simulation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from buildonce.config import Config
from buildonce.delivery import DeliveryError, RolledBack
from buildonce.delivery.aws.evidence import carrier, logins
from buildonce.release import Image, Release
from buildonce.release.copy import copy_release
from buildonce.release.record import cut_release, find_record, verify_record
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from tests.loopback import registry as serving
from tests.release.conftest import build, make_signer, push_index, statements

from .registries import refusal, registry_of, unsupported
from .rollouts import Team
from .simulation import Simulation
from .world import ACCOUNT, World

pytestmark = pytest.mark.anyio

_CONFIG = """
[project]
name = "shop"
repository = "{source}/shop"
[accounts.production]
id = "222222222222"
endpoint = "http://127.0.0.1:1"             # never called: a test's own connection
[environments.production]
target = "{target}"
account = "production"
region = "eu-west-1"
role = "shop-deploy"
registry = "{own}"
address = "https://shop.example"
policy = "production"
[policies.production]
signature = {{ keys = ["{key}"] }}
"""


@dataclass
class Registries:
    """The tools' registry, open to all here, and the one of the production account.

    Attributes:
        releases: two, cut in the tools' registry: signing takes seconds, so all tests share them.
        repositories: how many repositories tests have made: each has its own in both registries.
    """

    tools: str
    own: str
    tools_folder: Path
    folder: Path
    signer: Signer
    releases: tuple[Release, ...] = ()
    repositories: int = 0

    def config(self, target: str = "ecs", key: str = "ours.pub") -> Config:
        """The configuration of a test, with a repository of its own in the account."""
        self.repositories += 1
        own = f"{self.own}/shop{self.repositories}"
        text = _CONFIG.format(source=self.tools, own=own, target=target, key=key)
        return Config.parse(text, path=self.folder / "pipeline.toml")

    async def cut(self) -> None:
        """Two releases, each of an index of two images."""
        async with Registry() as client:
            for number in (1, 2):
                version = f"2026.11.21+g{number:07x}"
                record, _ = await cut_release(
                    await push_index(client, f"{self.tools}/shop", version),
                    statements(),
                    version=version,
                    revision=f"{number:040x}",
                    configuration=build().configuration,
                    signer=self.signer,
                    registry=client,
                )
                self.releases = (*self.releases, record.release)


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    folder = tmp_path_factory.mktemp("accounts")
    ours = make_signer(folder / "ours")
    (public,) = (folder / "ours").rglob("release.pub")
    shutil.copy(public, folder / "ours.pub")
    somebody = ec.generate_private_key(ec.SECP256R1()).public_key()
    (folder / "theirs.pub").write_bytes(
        somebody.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    tools = folder / "tools"
    with serving(tools) as host, registry_of(ACCOUNT, folder / "own") as own:
        made = Registries(host, own, tools, folder, ours)
        anyio.run(made.cut)
        yield made


def _team(found: Registries, simulation: Simulation, config: Config) -> Team:
    simulation.registries[ACCOUNT] = found.own
    world = World(
        "weighted",
        simulation=simulation,
        given=config.environments["production"],
        carry=carrier(config),
    )
    return Team(world.furnish())


def _written(simulation: Simulation) -> list[str]:
    reads = ("Describe", "Get", "List", "Assume")
    return [call.name for call in simulation.journal if not call.operation.startswith(reads)]


async def test_a_release_is_copied_whole_and_verified_there(
    registries: Registries, simulation: Simulation
) -> None:
    config = registries.config()
    team = _team(registries, simulation, config)
    release = registries.releases[0]
    registry = config.environments["production"].registry
    assert registry is not None
    image = Image(registry, release.image.digest)
    assert refusal(registries.own, ACCOUNT, image.reference) is not None
    await team.deploy(release)
    assert await team.check() == release.image.digest
    # What runs is referred to in the account's own registry, by the same digest.
    (deployed,) = {one.image for one in team.world.place.ecs.definitions.values()}
    assert deployed == image.reference
    # All of it is there: the index, each platform, signatures, attestations and the record.
    aws = (await team.world.target()).aws
    async with Registry(logins=logins(aws)) as client:
        trust = registries.signer.trust
        record = await find_record(
            image.repository, version=release.version, trust=trust, registry=client
        )
        assert record is not None
        assert record.release.image == image
        await verify_record(record, trust=trust, registry=client)
        index = await client.manifest(image.repository, image.digest)
        assert len(index.children) == 2
        for child in index.children:
            assert (await client.manifest(image.repository, child.digest)).config is not None
    # And nobody without a token of this account sees any of that.
    host, _, name = registry.partition("/")
    async with httpx.AsyncClient(trust_env=False) as anybody:
        answer = await anybody.get(f"http://{host}/v2/{name}/manifests/{image.digest}")
    assert answer.status_code == 401
    assert any(call.name == "ecr.GetAuthorizationToken" for call in simulation.journal)


async def test_a_missing_piece_is_refused_before_anything_is_touched(
    registries: Registries, simulation: Simulation
) -> None:
    config = registries.config()
    team = _team(registries, simulation, config)
    release = registries.releases[0]
    lost = f"{registries.tools}/lost"
    async with Registry() as client:
        find = {"trust": registries.signer.trust, "registry": client}
        record = await find_record(release.image.repository, version=release.version, **find)
        assert record is not None
        release = (await copy_release(record, lost, **find)).release
        tags = await client.tags(lost)
        tag = next(one for one in tags if one == f"{release.image.digest.replace(':', '-')}.att")
        blob = (await client.manifest(lost, tag)).layers[1].digest.removeprefix("sha256:")
    links = registries.tools_folder / "data/docker/registry/v2/repositories/lost/_layers/sha256"
    shutil.rmtree(links / blob)  # one attestation of several is gone
    with pytest.raises(RolledBack, match="cannot be copied whole"):
        await team.deploy(release)
    assert _written(simulation) == []
    assert await team.check() is None
    # Nothing has its name in the account's registry: no version, no commit.
    aws = (await team.world.target()).aws
    async with Registry(logins=logins(aws)) as client:
        tags = await client.tags(team.world.environment.registry or "")
    assert not [one for one in tags if one.startswith(("rel-", "rev-"))]


async def test_the_destination_believes_its_own_keys_only(
    registries: Registries, simulation: Simulation
) -> None:
    team = _team(registries, simulation, registries.config(key="theirs.pub"))
    with pytest.raises(RolledBack, match="not to be believed"):
        await team.deploy(registries.releases[0])
    assert _written(simulation) == []


async def test_a_function_takes_no_index(registries: Registries, simulation: Simulation) -> None:
    team = _team(registries, simulation, registries.config("lambda"))
    with pytest.raises(RolledBack, match="images of one platform only"):
        await team.deploy(registries.releases[0])
    assert _written(simulation) == []
    # And what it would say itself, if it were asked:
    image = registries.releases[0].image.reference
    refused = await anyio.to_thread.run_sync(unsupported, registries.tools, ACCOUNT, image)
    assert "media type" in str(refused)


async def test_a_rollback_needs_no_registry_but_the_accounts(
    registries: Registries, simulation: Simulation, tmp_path: Path
) -> None:
    config = registries.config()
    team = _team(registries, simulation, config)
    one, two = registries.releases
    await team.deploy(one)
    await team.deploy(two)
    gone = config.project.repository.replace(registries.tools, "127.0.0.1:1")
    for event in team.store.kept:  # what the ledger knows of the releases: cut where nobody is now
        if "repository" in event.data:
            event.data["repository"] = gone
    await team.rollback()
    assert await team.check() == one.image.digest


async def test_a_registry_that_nobody_fills_is_told(
    registries: Registries, simulation: Simulation
) -> None:
    team = _team(registries, simulation, registries.config())
    team.world.carry = None
    with pytest.raises(DeliveryError, match="nobody brings them there"):
        await team.deploy(registries.releases[0])
    assert _written(simulation) == []


async def test_what_is_not_in_the_accounts_registry_cannot_run(
    registries: Registries, simulation: Simulation
) -> None:
    team = _team(registries, simulation, registries.config())

    async def nothing(*_: object) -> None:
        await anyio.lowlevel.checkpoint()

    team.world.carry = nothing
    with pytest.raises(RolledBack, match="CannotPullContainer"):
        await team.deploy(registries.releases[0])
    assert await team.check() is None
