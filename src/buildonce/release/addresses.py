"""Where a registry is, by the name that it goes by in an image's name.

schemes("127.0.0.1:5080")          # ("http", "https"): a near one may be plain
schemes("registry.example.com")    # ("https",)
"""

from __future__ import annotations

import ipaddress

import httpx

from buildonce.loopback import is_loopback
from buildonce.release.errors import RegistryError

_DOCKER_HUB = ("docker.io", "registry-1.docker.io")  # its name, and where it really is


def schemes(host: str) -> tuple[str, ...]:
    """What to try, in order: as cosign and docker do, only near addresses may be plain."""
    if is_loopback(host):
        return ("http", "https")
    name = _bare(host)
    if name.endswith((".local", ".localhost")):
        return ("https", "http")
    try:
        return ("https", "http") if ipaddress.ip_address(name).is_private else ("https",)
    except ValueError:
        return ("https",)


def address_of(host: str) -> str:
    """The host and port to connect to."""
    return _DOCKER_HUB[1] if host == _DOCKER_HUB[0] else host


def login_name(host: str) -> str:
    """The name by which `docker login` knows it."""
    return _DOCKER_HUB[0] if host == _DOCKER_HUB[1] else host


def url_of(text: str, host: str, base: httpx.URL | None = None) -> httpx.URL:
    """An address that a registry gave.

    Args:
        text: as it stands in the answer.
        host: the registry that gave it, for the message.
        base: what it is relative to; None: it must be whole.

    Raises:
        RegistryError: it is none that could be asked.
    """
    try:
        found = base.join(text) if base is not None else httpx.URL(text)
        known = found.scheme in ("http", "https") and bool(found.host)
    except (httpx.InvalidURL, ValueError, TypeError):
        known = False
    if not known:
        raise RegistryError(f"the registry {host} leads to what is no address: {text[:100]!r}")
    return found


def _bare(host: str) -> str:
    return httpx.URL(f"http://{host}").host
