from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from buildonce.advisories import Database
from buildonce.advisories.update import update
from tests.loopback import http_server


def archive(count: int) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in range(count):
            record = {"id": f"A-{number}", "modified": "2026-01-01T00:00:00Z"}
            opened.writestr(f"A-{number}.json", json.dumps(record))
    return whole.getvalue()


def bomb() -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("A-1.json", b" " * (20 << 20))
    return whole.getvalue()


@contextmanager
def server(status: int, body: bytes, claimed: int | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as address:
        yield f"http://{address}"


@pytest.mark.anyio
async def test_what_is_fetched_is_checked_and_put_in_place(tmp_path: Path) -> None:
    with server(200, archive(10)) as origin:
        (result,) = await update(tmp_path, ["PyPI"], origin=origin, say=print)
    assert result.problem is None
    assert Database.open(tmp_path).count == 10


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body", "claimed", "cause"),
    [
        (404, b"", None, "404"),
        (500, b"", None, "500"),
        (200, archive(10)[:200], 5000, "whole file"),
        (200, b"<html>", None, "zip"),
        (200, bomb(), None, "unpacks to too much"),
        (200, archive(4), None, "more than half"),
        (200, archive(0), None, "no advisory"),
    ],
)
async def test_whatever_goes_wrong_the_old_one_stays(
    tmp_path: Path, status: int, body: bytes, claimed: int | None, cause: str
) -> None:
    with server(200, archive(10)) as origin:
        await update(tmp_path, ["PyPI"], origin=origin, say=print)
    before = Database.open(tmp_path).digest
    with server(status, body, claimed) as origin:
        (result,) = await update(tmp_path, ["PyPI"], origin=origin, say=print)
    assert cause in str(result.problem)
    assert Database.open(tmp_path).digest == before
    assert not list(tmp_path.glob("osv-scanner/.new-*"))
