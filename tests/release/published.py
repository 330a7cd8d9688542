"""Plain cosign, as its own documentation says, outside our code: what it accepts of a release."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import anyio

from buildonce.release.cosign import Cosign


def cosign(folder: Path, *arguments: str) -> str:
    """Run cosign alone, without a home or a configuration; what it printed."""
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


def check_published(
    image: str, record: str, version: str, kinds: Iterable[str], *, key: Path, folder: Path
) -> list[str]:
    """That cosign accepts the signatures of an image and of its release record, and of each kind
    of attestation all that there are.

    Args:
        image, record: references with digests.
        version: what the image's signature must say.
        kinds: predicate types.
        key: the public key.
        folder: an empty one, to work in.

    Returns:
        The names of the attestations that it accepted, sorted.
    """
    cosign(folder, "trusted-root", "create", "--out", "empty.json")
    options = ["--key", str(key), "--private-infrastructure", "--trusted-root", "empty.json"]
    [claim] = json.loads(cosign(folder, "verify", *options, image))
    assert claim["critical"]["image"]["docker-manifest-digest"] == image.partition("@")[2]
    assert claim["optional"]["version"] == version
    cosign(folder, "verify", *options, record)
    names = []
    for kind in set(kinds):
        lines = cosign(folder, "verify-attestation", "--type", kind, *options, image).splitlines()
        for line in lines:
            statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
            assert statement["predicateType"] == kind
            names.append(statement["subject"][0]["annotations"]["name"])
    return sorted(names)
