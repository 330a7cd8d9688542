"""Registries that break: cut off in the middle, or answering nonsense.

with registry(tmp_path) as real, cut_off(real, after=100_000) as address:
    container.publish(f"{address}/image:1")
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.loopback import http_server


@contextmanager
def cut_off(target: str, *, after: int) -> Iterator[str]:
    """A way to `target` that is cut, for good, when `after` bytes have gone through it."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [after]
    sockets: list[socket.socket] = [listener]

    def cut() -> None:
        for one in sockets:
            with suppress(OSError):  # as a cable that is pulled: reset, not a polite end
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                left[0] -= len(data)
                if left[0] <= 0:
                    return cut()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        host, _, port = target.partition(":")
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                sockets.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        cut()
        thread.join(5)


@contextmanager
def answering(status: int, body: bytes = b"", *, promised: int | None = None) -> Iterator[str]:
    """A registry with one answer to everything.

    Args:
        promised: the length that it announces; with more than it has, the answer breaks off.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic realm=here")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as address:
        yield address


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size at `folder`; for root only."""
    folder.mkdir(parents=True, mode=0o700)
    size = f"size={megabytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        for _ in range(100):
            done = subprocess.run(["umount", str(folder)], capture_output=True, check=False)
            if done.returncode == 0:
                break
            time.sleep(0.05)
