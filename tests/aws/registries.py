"""Each account's ECR: a real registry on loopback, closed to all who have no token of the account.

with registry_of("222222222222", folder) as host:       # "127.0.0.1:41234"
    simulation.registries["222222222222"] = host
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.loopback import registry

from .wire import Call

if TYPE_CHECKING:
    from .place import Place

# bcrypt of `_password(account)`, as cheap as it can be: the registry computes it for each request.
_HASHES = {
    "111111111111": "$2b$05$abcdefghijklmnopqrstu.jw0MnWVXM8Uhl.SrWofvNKNMqrO6wj6",
    "222222222222": "$2b$05$abcdefghijklmnopqrstu.8qYVvESssPpTGi401d0VykgcvPqEcxK",
    "333333333333": "$2b$05$abcdefghijklmnopqrstu.Xh6ezcJQOO/s0ARbHAS/zJgnxHcboRy",
}
_MANIFESTS = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
_USER = "AWS"


def _password(account: str) -> str:
    return f"registry-of-{account}"


@contextmanager
def registry_of(account: str, folder: Path, *, port: int | None = None) -> Iterator[str]:
    """host:port of an account's registry, with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "htpasswd"
    users.write_text(f"{_USER}:{_HASHES[account]}\n")
    with registry(folder, htpasswd=users, port=port) as host:
        yield host


def refusal(host: str, account: str, image: str) -> str | None:
    """Why the account cannot pull an image out of that registry; None when it can."""
    answer = _manifest(host, account, image)
    if answer.status_code == 200:
        return None
    return f"CannotPullContainerError: {image}: HTTP {answer.status_code}"


def unsupported(host: str, account: str, image: str) -> str | None:
    """Why a function cannot be made of an image: Lambda takes those of one platform only."""
    kind = _manifest(host, account, image).headers.get("Content-Type", "")
    if "index" not in kind and "list" not in kind:
        return None
    return f"The image manifest, config or layer media type for {image} is not supported."


def _manifest(host: str, account: str, image: str) -> httpx.Response:
    name, _, digest = image.partition("/")[2].partition("@")
    return httpx.head(
        f"http://{host}/v2/{name}/manifests/{digest}",
        headers={"Accept": _MANIFESTS},
        auth=(_USER, _password(account)),
        trust_env=False,
    )


class Ecr:
    """What ECR itself answers; images are the registry's business."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def GetAuthorizationToken(self, call: Call) -> dict[str, Any]:
        host = self.place.simulation.registries.get(self.place.account)
        login = f"{_USER}:{_password(self.place.account)}"
        real = f"https://{self.place.account}.dkr.ecr.{self.place.region}.amazonaws.com"
        return {
            "authorizationData": [
                {
                    "authorizationToken": base64.b64encode(login.encode()).decode(),
                    "expiresAt": self.place.clock.now() + timedelta(hours=12),
                    "proxyEndpoint": real if host is None else f"http://{host}",
                }
            ]
        }
