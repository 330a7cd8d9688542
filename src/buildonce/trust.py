"""Whom HTTPS trusts: the authorities that httpx brings, or those that SSL_CERT_FILE names.

httpx.AsyncClient(trust_env=False, verify=ssl_context())   # no proxy, but a company's own roots
"""

from __future__ import annotations

import os
import ssl
from functools import cache

import httpx


def ssl_context() -> ssl.SSLContext:
    """What to verify servers with; SSL_CERT_FILE and SSL_CERT_DIR are honoured.

    It is read once, since it takes 25 ms: nobody may change what is returned.
    """
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _read(file: str | None, folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()
