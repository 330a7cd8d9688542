"""What a release made, verified by cosign alone. Of a real run: tests/e2e/test_pipeline.py."""

from __future__ import annotations

from pathlib import Path

from buildonce.release.models import Record
from buildonce.release.signing import Signer

from .published import check_published


def test_cosign_accepts_every_signature_and_attestation(
    released: Record, signer: Signer, tmp_path: Path
) -> None:
    image = released.release.image
    assert signer.pair is not None
    names = check_published(
        image.reference,
        f"{image.repository}@{released.digest}",
        released.release.version,
        (item.type for item in released.evidence),
        key=signer.pair.public,
        folder=tmp_path,
    )
    assert names == sorted(item.name for item in released.evidence)
