"""What a release made, verified by cosign as its documentation says, outside our code."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import anyio

from buildonce.release.cosign import Cosign
from buildonce.release.models import Record
from buildonce.release.signing import Signer


def cosign(folder: Path, *arguments: str) -> str:
    """Run cosign alone, without a home or a configuration."""
    program = anyio.run(Cosign.found).path
    done = subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cosign_accepts_every_signature_and_attestation(
    released: Record, signer: Signer, tmp_path: Path
) -> None:
    record, image = released, released.release.image
    assert signer.pair is not None
    key = str(signer.pair.public)
    cosign(tmp_path, "trusted-root", "create", "--out", "empty.json")
    options = ["--key", key, "--private-infrastructure", "--trusted-root", "empty.json"]
    [claim] = json.loads(cosign(tmp_path, "verify", *options, image.reference))
    assert claim["critical"]["image"]["docker-manifest-digest"] == image.digest
    assert claim["optional"]["version"] == record.release.version
    cosign(tmp_path, "verify", *options, f"{image.repository}@{record.digest}")
    found = []
    for kind in {item.type for item in record.evidence}:
        lines = cosign(
            tmp_path, "verify-attestation", "--type", kind, *options, image.reference
        ).splitlines()
        for line in lines:
            statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
            assert statement["predicateType"] == kind
            found.append(statement["subject"][0]["annotations"]["name"])
    assert sorted(found) == sorted(item.name for item in record.evidence)
