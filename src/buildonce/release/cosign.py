"""The cosign program: what it is asked, and what it may not do.

    cosign = await Cosign.found()
    signatures = await cosign.sign_blobs("release.key", [payload], password="…")

It gets no COSIGN_* variable of the user's, which could send signatures elsewhere; the password goes
by its environment, never by a command line. Unless told to, it asks no transparency log and no
update server (TUF): an empty trusted root keeps it from looking for one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.release.models import Image
from buildonce.release.parallel import each
from buildonce.toolchain import binaries
from buildonce.toolchain.whole import write_whole

_SECONDS = 120.0
_PROCESSES = 2  # at once: each signature costs 0.15 s of processor to decrypt the key
# What `cosign trusted-root create` writes.
_EMPTY_ROOT = '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
OFFLINE_SIGN = ("--tlog-upload=false", "--yes")


class CosignFailed(BuildonceError):
    """Cosign refused, or could not do, what it was asked."""


@dataclass(frozen=True)
class Cosign:
    """The program.

    Args:
        path: of the executable.
    """

    path: Path

    @classmethod
    async def found(cls) -> Cosign:
        """The machine's cosign, built first where there is none.

        Raises:
            BuildonceError: it cannot be built.
        """
        return cls((await binaries.ensure("cosign")).path)

    async def sign_blobs(self, key: str, blobs: Sequence[bytes], *, password: str) -> list[str]:
        """Sign bytes with a key.

        Args:
            key: path of a key file, or awskms://….
            blobs: what is signed, each.
            password: of the key file; "" with KMS.

        Returns:
            The signatures (base64), in the order of the blobs.

        Raises:
            CosignFailed: wrong password, no such key, no access.
        """
        if not blobs:
            return []
        with tempfile.TemporaryDirectory(prefix="buildonce-sign-") as folder:
            files = [Path(folder, str(number)) for number in range(len(blobs))]
            for file, blob in zip(files, blobs, strict=True):
                file.write_bytes(blob)
            size = -(-len(files) // _PROCESSES)
            parts = [files[start : start + size] for start in range(0, len(files), size)]

            async def sign(part: Sequence[Path]) -> list[str]:
                output = await self._run(
                    ["sign-blob", "--key", key, *OFFLINE_SIGN, *map(str, part)],
                    {"COSIGN_PASSWORD": password},
                    f"signing with {key}",
                )
                signatures = output.split()
                if len(signatures) != len(part):
                    raise CosignFailed(
                        f"cosign made {len(signatures)} signatures of {len(part)} with {key}"
                    )
                return signatures

            return [signature for part in await each(sign, parts) for signature in part]

    async def check(
        self, key: Path, image: Image, types: Sequence[str], *, signature: bool = True
    ) -> None:
        """Have cosign itself verify the image's signature, and attestations of each type.

        Raises:
            CosignFailed: it does not accept one.
        """
        options = ["--key", str(key), *self.offline()]
        commands = [["verify", *options]] if signature else []
        commands += [["verify-attestation", "--type", kind, *options] for kind in types]
        what = f"verifying {image.reference}"
        await each(
            lambda command: self._run([*command, image.reference], {}, what), commands, at_once=2
        )

    async def accepted(self, command: Sequence[str], image: Image) -> str:
        """What a command of cosign's that verifies prints; "" when it accepts nothing."""
        try:
            return await self._run([*command, image.reference], {}, "verifying")
        except CosignFailed:
            return ""

    async def upload(self, command: Sequence[str], image: Image, password: str) -> None:
        """Sign or attest as cosign does it alone, with the transparency log.

        Raises:
            CosignFailed: it did not work.
        """
        variables = {"COSIGN_PASSWORD": password} if password else {}
        await self._run([*command, "--yes", image.reference], variables, f"{command[0]}ing")

    def offline(self) -> list[str]:
        """Options that make a verification ask nobody but the registry."""
        root = places.cache() / "cosign" / "empty-trusted-root.json"
        if not root.is_file():
            write_whole(root, _EMPTY_ROOT)
        return ["--private-infrastructure", "--trusted-root", str(root)]

    async def _run(self, arguments: Sequence[str], variables: Mapping[str, str], what: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COSIGN_")}
        with anyio.move_on_after(_SECONDS):
            done = await anyio.run_process(
                [str(self.path), *arguments],
                env={**environment, **variables},
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                check=False,
            )
            if done.returncode == 0:
                return done.stdout.decode()
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise CosignFailed(
                f"cosign {arguments[0]} failed ({what}): {_cause(lines)}",
                remedy=_remedy([*arguments, *lines]),
            )
        raise CosignFailed(f"cosign {arguments[0]} did not end in {_SECONDS:.0f} s ({what})")


def _cause(lines: Sequence[str]) -> str:
    told = [line for line in lines if not line.startswith(("Using payload", "WARNING"))]
    return (told[-1] if told else "it said nothing")[:400]


def _remedy(lines: Sequence[str]) -> str | None:
    text = " ".join(lines)
    if "decrypt" in text:
        return "export COSIGN_PASSWORD with the key's password"
    if "awskms" in text or "AWS" in text:
        return "check AWS_REGION, the credentials, and that they allow kms:Sign on this key"
    return None
