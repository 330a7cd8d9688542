"""Whether a host is this very machine: a credential may go without TLS nowhere else.

is_loopback("127.0.0.1:5080")         # True
is_loopback("registry.example.com")   # False
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself, by what it is called: no name is looked up.

    Args:
        host: a host with or without a port, or a whole URL.
    """
    try:
        name = urlsplit(host if "://" in host else f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
