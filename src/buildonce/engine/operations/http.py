"""Files from HTTP addresses, fetched by the daemon, or from a service, fetched here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path

import anyio

from buildonce.engine import llb
from buildonce.engine.addresses import parts_of, served
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.paths import check_name
from buildonce.engine.states import FileState, SecretState, ServiceState

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_TIMEOUT = 60.0  # seconds without a byte


@operation("Query.http")
async def http(
    engine: Engine,
    self: None,
    url: str,
    name: str | None = None,
    permissions: int | None = None,
    checksum: str | None = None,
    auth_header: SecretState | None = None,
    experimental_service_host: ServiceState | None = None,
) -> FileState:
    if not url.startswith(("http://", "https://")):
        raise QueryFailed(f"{url!r} is not an HTTP address")
    parts = parts_of(url)
    chosen = name or parts.path.rpartition("/")[2] or "index"
    check_name(chosen)
    if checksum and not _CHECKSUM.fullmatch(checksum):
        raise QueryFailed(
            f'invalid checksum "{checksum}": it must be sha256:<64 hexadecimal digits>'
        )
    service = experimental_service_host
    if service is None:
        service = engine.services.by_name(parts.hostname or "")
    if service is not None:
        folder = await _fetched(engine, url, chosen, service, auth_header)
        (folder / chosen).chmod(0o600 if permissions is None else permissions)
        _check(folder / chosen, checksum)
        output = await engine.uploads.directory(folder, shown=url, made_here=True)
        return FileState(output, f"/{chosen}", engine.platform)
    attributes = {"http.filename": chosen}
    attributes["http.perm"] = oct(0o600 if permissions is None else permissions).replace("0o", "0")
    if checksum:
        attributes["http.checksum"] = checksum
    if auth_header is not None:
        attributes["http.authheadersecret"] = auth_header.identity
    output = llb.source(url, attributes, platform=engine.platform, name=f"http {url}")
    return FileState(output, f"/{chosen}", engine.platform)


async def _fetched(
    engine: Engine, url: str, name: str, service: ServiceState, header: SecretState | None
) -> Path:
    """A folder with what a service gives out; its name leads there in this session only."""
    folder = engine.scratch_folder()
    parts = parts_of(url)
    headers = {"Host": parts.netloc}
    if header is not None:
        headers["Authorization"] = (await engine.secrets.value(header.identity)).decode()
    async with served(engine, service, parts) as (host, port):
        there = parts._replace(netloc=f"{host}:{port}").geturl()
        request = urllib.request.Request(there, headers=headers)  # noqa: S310  # HTTP, see `http`

        def fetch() -> None:
            # No proxy: the service is on this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_TIMEOUT) as answer, (folder / name).open("wb") as to:
                shutil.copyfileobj(answer, to)
                changed = parsedate_tz(answer.headers.get("Last-Modified", ""))
            # As the daemon dates what it fetches: the same file is the same each time.
            when = mktime_tz(changed) if changed else 0
            os.utime(folder / name, (when, when))

        try:
            await anyio.to_thread.run_sync(fetch)
        except urllib.error.HTTPError as error:
            raise QueryFailed(f"{url}: invalid response status {error.code}") from None
        except OSError as error:
            raise QueryFailed(f"{url}: {error}") from None
    return folder


def _check(file: Path, checksum: str | None) -> None:
    if checksum:
        found = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        if found != checksum:
            raise QueryFailed(f"http checksum mismatch: expected {checksum}, got {found}")
