"""The service that tests deploy: a small HTTP/1.1 server that keeps connections alive.

Run as a script; PORT and the BUILDONCE_* variables as a container gets them. BREAK makes it
misbehave: "exit" at the start, "unhealthy" (500 on /healthz), "silent" (never listens), "liar"
(another digest).
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("?")[2] or 1))
        broken = os.environ.get("BREAK")
        digest = "sha256:" + "f" * 64 if broken == "liar" else os.environ["BUILDONCE_DIGEST"]
        body = {
            "digest": digest,
            "version": os.environ["BUILDONCE_VERSION"],
            "greeting": os.environ.get("GREETING"),
        }
        status = 500 if broken == "unhealthy" and self.path == "/healthz" else 200
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

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
