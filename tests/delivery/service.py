"""The service that tests deploy: a small HTTP/1.1 server that keeps connections alive.

Run as a script; PORT and the BUILDONCE_* variables as a container gets them. BREAK makes it
misbehave: "exit" at the start, "unhealthy" (500 on /healthz), "silent" (never listens), "liar"
(another digest), "errors" (500 on /basket).

GET says who it is, /slow?2 after two seconds; /events?3 is a stream of events for three seconds;
/socket a WebSocket that answers each message with its version. POST says how much it got.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVERY = 0.1  # seconds between two events


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, argument = self.path.partition("?")
        if path == "/slow":
            time.sleep(float(argument))
        if path == "/events":
            self.events(round(float(argument) / EVERY))
        elif path == "/socket":
            self.socket()
        else:
            broken = {"unhealthy": "/healthz", "errors": "/basket"}.get(os.environ.get("BREAK", ""))
            self.answer({"greeting": os.environ.get("GREETING")}, 500 if path == broken else 200)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            got = 0
            while size := int(self.rfile.readline(), 16):
                got += len(self.rfile.read(size + 2)) - 2
            self.rfile.readline()
        else:
            got = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"got": got})

    def answer(self, more: dict[str, object], status: int = 200) -> None:
        liar = os.environ.get("BREAK") == "liar"
        digest = "sha256:" + "f" * 64 if liar else os.environ["BUILDONCE_DIGEST"]
        body = {"digest": digest, "version": os.environ["BUILDONCE_VERSION"], **more}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def events(self, number: int) -> None:
        chunked = self.request_version != "HTTP/1.0"  # which ends a stream with the connection
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")  # and so that the proxy knows, too
        self.end_headers()
        for count in range(number):
            event = f"data: {os.environ['BUILDONCE_VERSION']} {count}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
            time.sleep(EVERY)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def socket(self) -> None:
        salted = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = hashlib.sha1(salted.encode(), usedforsecurity=False).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.end_headers()
        while (head := self.rfile.read(2)) and head[0] & 0x0F != 8:  # 8 closes
            self.rfile.read(4 + (head[1] & 0x7F))  # the mask, and a short message
            version = os.environ["BUILDONCE_VERSION"].encode()
            self.wfile.write(bytes([0x81, len(version)]) + version)
        self.wfile.write(bytes([0x88, 0]))
        self.close_connection = True

    def log_message(self, *args: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    if os.environ.get("BREAK") == "exit":
        sys.exit("cannot find the flux capacitor")
    if os.environ.get("BREAK") == "silent":
        time.sleep(3600)
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
