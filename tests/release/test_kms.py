"""`[signing] key = "awskms://…"`: cosign signs with a key that never leaves a KMS.

The KMS is moto's, a server on loopback that cosign speaks AWS's protocol with. One thing in it is
mended: asked to sign a digest (MessageType DIGEST), moto 5 hashes it once more, so that nothing it
signs verifies; AWS signs it as it is. See
https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html#KMS-Sign-request-MessageType
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from moto.kms import responses
from moto.kms.utils import ECDSAPrivateKey
from moto.server import ThreadedMotoServer

from buildonce.config import Config
from buildonce.release.cosign import Cosign, CosignFailed
from buildonce.release.errors import NotSigned
from buildonce.release.keys import read_public_key
from buildonce.release.policy_check import examine
from buildonce.release.record import verify_record
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.store import Store

from .conftest import build, config_of, push_image
from .policy_samples import POLICIES, evidence

pytestmark = pytest.mark.anyio

KEY = "awskms:///alias/release"


@pytest.fixture(scope="module")
def kms() -> Iterator[Any]:
    """A client of a KMS that has the key; cosign finds it by the environment."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)

    def as_it_is(own: Any, message: bytes, _: str) -> bytes:
        signature: bytes = own.private_key.sign(message, ec.ECDSA(Prehashed(SHA256())))
        return signature

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ECDSAPrivateKey, "sign", as_it_is)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_REGION", "eu-west-1")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client = boto3.client("kms")
        made = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        client.create_alias(AliasName="alias/release", TargetKeyId=made["KeyMetadata"]["KeyId"])
        try:
            yield client
        finally:
            server.stop()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of message that the KMS was asked to sign."""
    seen: list[str] = []
    really = responses.KmsResponse.sign

    def sign(own: Any) -> str:
        seen.append(own._get_param("MessageType"))
        return really(own)

    monkeypatch.setattr(responses.KmsResponse, "sign", sign)
    return seen


async def configured(repository: str, folder: Path) -> Config:
    """The project's configuration, with the public half that `cosign public-key` writes."""
    cosign = await Cosign.found()
    done = await anyio.run_process([str(cosign.path), "public-key", "--key", KEY])
    (folder / "release.pub").write_bytes(done.stdout)
    signing = f'[signing]\nkey = "{KEY}"\npublic_key = "release.pub"\n'
    return config_of(repository, folder, signing + POLICIES)


async def test_a_key_in_a_kms_signs_what_a_policy_lets_in(
    kms: Any, asked: list[str], repository: str, registry: Registry, tmp_path: Path,
    signer: Signer, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = await configured(repository, tmp_path)
    store = Store(config, registry, repository=repository, trust=None, say=lambda _: None)
    image = await push_image(registry, repository)
    now = datetime.now(UTC)
    record, new = await store.cut(image, evidence(now), build(started=now))
    assert new
    assert record.signed_by == read_public_key(tmp_path / "release.pub").fingerprint
    # The image, its evidence with the provenance, and the record: each was signed over there.
    assert asked == ["DIGEST"] * (1 + len(record.evidence) + 1)
    # Who verifies needs no AWS.
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    decision = await examine(
        record.release, "production", config=config, ledger=None, registry=registry
    )
    assert decision.allowed, decision.failing
    with pytest.raises(NotSigned):
        await verify_record(record, trust=signer.trust, registry=registry)


async def test_a_kms_that_does_not_sign_is_told(
    kms: Any, repository: str, registry: Registry, tmp_path: Path, signer: Signer
) -> None:
    (tmp_path / "release.pub").write_text(signer.trust.keys[0].pem)
    signing = '[signing]\nkey = "awskms:///alias/gone"\npublic_key = "release.pub"\n'
    config = config_of(repository, tmp_path, signing)
    store = Store(config, registry, repository=repository, trust=None, say=lambda _: None)
    image = await push_image(registry, repository)
    with pytest.raises(CosignFailed, match=r"signing with awskms:///alias/gone") as told:
        await store.cut(image, [], build())
    assert "AWS_REGION" in str(told.value.remedy)
    assert await store.find(build().revision.version) is None
