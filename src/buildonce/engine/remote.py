"""A buildkitd that runs already (`BUILDKIT_HOST`): whether it can be used, and if not, why not.

BUILDKIT_HOST=tcp://buildkitd:1234
BUILDONCE_BUILDKIT_TLS=/etc/buildkit/client     # a folder with ca.pem, cert.pem and key.pem
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from buildonce.engine.buildkit import TLS, BuildkitError, Client, DaemonRefused
from buildonce.errors import BuildonceError

ANSWER = 10.0  # seconds until a daemon must have said who it is
OLDEST = (0, 19)  # the first that makes symbolic links
_UNSET = "or unset BUILDKIT_HOST to use a daemon of our own"


def tls(folder: Path | None, address: str) -> TLS | None:
    """The files to speak TLS with the daemon at `address`; None: it is spoken without.

    Raises:
        BuildonceError: one of them is missing.
    """
    if folder is None or not address.startswith("tcp://"):
        return None
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    needed = [ca] if not cert.exists() and not key.exists() else [ca, cert, key]
    for file in needed:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BuildonceError(
                f"BUILDONCE_BUILDKIT_TLS: {file}: {error.strerror}",
                remedy="put ca.pem (who signed the daemon's certificate) and, if it asks for one, "
                f"your certificate as cert.pem and key.pem into {folder}",
            ) from None
        if b"-----BEGIN" not in content:
            raise BuildonceError(
                f"BUILDONCE_BUILDKIT_TLS: {file} is not PEM",
                remedy=f"openssl x509 -inform der -in {file} -out {file}",
            )
    return TLS(ca, *((cert, key) if len(needed) > 1 else (None, None)))


async def check(address: str, files: TLS | None) -> None:
    """Make sure that a daemon answers there, and is one that we can work with.

    Raises:
        BuildonceError: names the address, what is wrong and what to do.
    """
    try:
        async with Client.connect(address, tls=files) as client:
            info = await asyncio.wait_for(client.info(), ANSWER)
    except TimeoutError:
        raise BuildonceError(
            f"nothing at {address} has answered within {ANSWER:.0f} s",
            remedy=f"check the address in BUILDKIT_HOST, {_UNSET}",
        ) from None
    except BuildkitError as error:
        raise _refused(address, files, error) from None
    found = re.match(r"v?(\d+)\.(\d+)\.", info.version)
    if found and (0, 0) < (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BuildonceError(
            f"the buildkitd at {address} is {info.version}, and v{oldest} is the oldest that will "
            "do",
            remedy=f"update it, {_UNSET}",
        )


def _refused(address: str, files: TLS | None, error: BuildkitError) -> BuildonceError:
    text = error.message
    if "is not an address" in text:
        return error
    if not isinstance(error, DaemonRefused) and "went away" not in text:
        return BuildonceError(
            f"what answers at {address} is not a buildkitd that we can speak with: {text}",
            remedy=f"check the address in BUILDKIT_HOST, {_UNSET}",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BuildonceError(
            f"the daemon at {address} shows a certificate that is not signed by "
            f"{files.ca if files else 'anybody known'}",
            remedy="put the certificate of who signed it into BUILDONCE_BUILDKIT_TLS as ca.pem",
        )
    if "Peer name" in text or "Hostname" in text:
        return BuildonceError(
            f"the certificate of the daemon at {address} is for another name",
            remedy="name it in BUILDKIT_HOST as its certificate does (openssl x509 -in CERT -text)",
        )
    if files is not None and ("Unwrap failed" in text or "CERTIFICATE_REQUIRED" in text):
        given = f"{files.cert} is not signed by whom it trusts" if files.cert else "none was given"
        return BuildonceError(
            f"the daemon at {address} wants a certificate of its clients, and {given}",
            remedy="put one, with its key, into BUILDONCE_BUILDKIT_TLS as cert.pem and key.pem",
        )
    if files is not None and "WRONG_VERSION_NUMBER" in text:
        return BuildonceError(
            f"the daemon at {address} does not speak TLS", remedy="unset BUILDONCE_BUILDKIT_TLS"
        )
    if files is None and address.startswith("tcp://") and "Socket closed" in text:
        return BuildonceError(
            f"the daemon at {address} closes the connection: it speaks TLS, as it seems",
            remedy="set BUILDONCE_BUILDKIT_TLS to a folder with ca.pem, cert.pem and key.pem",
        )
    cause = text.rpartition("error: ")[2].rpartition(": ")[2].rstrip("]")
    return BuildonceError(
        f"nothing answers at {address}: {cause}", remedy=f"start buildkitd there, {_UNSET}"
    )
