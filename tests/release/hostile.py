"""A registry that lies, stalls or breaks: a proxy before a real one, with faults on chosen paths.

with faulty(host, {"GET /v2/app/manifests/": status(500)}) as address:
    ...
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import httpx

from tests.loopback import http_server


class Handler(BaseHTTPRequestHandler):
    """One request at the proxy."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    faults: Mapping[str, Fault]
    seen: list[tuple[str, str, dict[str, str]]]

    def handle_all(self) -> None:
        request = f"{self.command} {self.path}"
        self.seen.append((self.command, self.path, dict(self.headers.items())))
        for part, fault in self.faults.items():
            if part in request:
                fault(self)
                return
        self.forward()

    def forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        if self.headers.get("Transfer-Encoding") == "chunked":
            raise AssertionError("lengths are known, so nothing need be sent in chunks")
        sent = {
            name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers
        }
        answer = httpx.request(
            self.command,
            f"http://{self.upstream}{self.path}",
            content=body,
            headers=sent,
            trust_env=False,
        )
        self.answer(answer.status_code, answer.content, dict(answer.headers.items()))

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "date", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_all

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Fault = Callable[[Handler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with a status."""

    def fault(handler: Handler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.answer(code, body, named)

    return fault


def html(code: int) -> Fault:
    """Answer as a proxy or a captive portal does."""
    return status(code, b"<html>not here</html>", Content_Type="text/html")


def half(handler: Handler) -> None:
    """Break off in the middle of the body."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    nothing(handler)


def nothing(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def changed(old: bytes, new: bytes) -> Fault:
    """Give the real answer with something replaced in it."""

    def fault(handler: Handler) -> None:
        accept = {"Accept": handler.headers.get("Accept", "*/*")}
        address = f"http://{handler.upstream}{handler.path}"
        answer = httpx.get(address, headers=accept, trust_env=False)
        kind = answer.headers["Content-Type"]
        handler.answer(200, answer.content.replace(old, new), {"Content-Type": kind})

    return fault


def retyped(kind: str) -> Fault:
    """Give the real answer as something of another media type."""

    def fault(handler: Handler) -> None:
        accept = {"Accept": handler.headers.get("Accept", "*/*")}
        address = f"http://{handler.upstream}{handler.path}"
        answer = httpx.get(address, headers=accept, trust_env=False)
        handler.answer(answer.status_code, answer.content, {"Content-Type": kind})

    return fault


def first_times(count: int, fault: Fault) -> Fault:
    """A fault that passes."""
    left = [count]

    def sometimes(handler: Handler) -> None:
        left[0] -= 1
        if left[0] >= 0:
            fault(handler)
        else:
            handler.forward()

    return sometimes


@contextmanager
def faulty(
    upstream: str,
    faults: Mapping[str, Fault],
    seen: list[tuple[str, str, dict[str, str]]] | None = None,
) -> Iterator[str]:
    """host:port of the proxy before the registry `upstream`.

    Args:
        faults: what happens to requests ("GET /v2/…") in which a text occurs.
        seen: gets method, path and headers of every request.
    """
    own = type(
        "Own",
        (Handler,),
        {"upstream": upstream, "faults": faults, "seen": seen if seen is not None else []},
    )
    with http_server(own) as address:
        yield address
