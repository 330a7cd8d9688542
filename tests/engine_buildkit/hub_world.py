"""A machine at 192.0.2.1 with a web server, a name server, a daemon (`sleep`) and two containers.

    unshare --user --map-root-user --mount --net python hub_world.py SHIM FOLDER SETTINGS

Prints what a container reaches of it, as JSON.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHIM, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
SETTINGS = json.loads(sys.argv[3])
PLUGINS = FOLDER / "plugins"
SERVE = """
import http.server
http.server.HTTPServer(("", 80), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
ASK = """
import json, socket, sys, time, urllib.request

def get(url):
    try:
        return urllib.request.urlopen(url, timeout=20).read().decode()
    except OSError as error:
        return str(getattr(error, "reason", error))

out = {
    "outside": get("http://192.0.2.1:8000/"),
    "closed": get("http://192.0.2.1:9/"),
    "loopback": get("http://127.0.0.1:8000/"),
}
for _ in range(500):
    out["neighbour"] = get(f"http://{sys.argv[1]}/word")
    if "refused" not in out["neighbour"]:
        break
    time.sleep(0.02)
with socket.socket(type=socket.SOCK_DGRAM) as asking:
    asking.settimeout(20)
    asking.sendto(b"who", ("203.0.113.53", 53))
    out["name"] = asking.recv(4096).decode()
print(json.dumps(out))
"""


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def do(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(done.stdout)


def until(condition: Callable[[], object]) -> bool:
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


def furnish() -> None:
    """The machine; where it stores what, and whom it asks for names, is its own."""
    for line in (
        "link set lo up",
        "link add d0 type bridge",
        "addr add 192.0.2.1/24 dev d0",
        "link set d0 up",
    ):
        do("ip", *line.split())
    for folder in ("/var/lib", "/run"):
        do("mount", "-t", "tmpfs", "none", folder)
    asked = Path(os.path.realpath("/etc/resolv.conf"))
    names = asked if asked.is_relative_to("/run") else FOLDER / "resolv.conf"
    names.parent.mkdir(parents=True, exist_ok=True)
    names.write_text("nameserver 192.0.2.1\n")
    if names != asked:
        do("mount", "--bind", names, asked)
    in_background(http.server.HTTPServer(("192.0.2.1", 8000), Hello).serve_forever)
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("192.0.2.1", 53))

    def answer() -> None:
        while True:
            question, who = server.recvfrom(4096)
            server.sendto(b"answer to " + question, who)

    in_background(answer)


def relays(daemon: int) -> bool:
    wanted = [b"hub-relay", str(daemon).encode()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[1:3] == wanted:
                return True
        except OSError:
            continue
    return False


def plug(command: str, name: str, plugin: str) -> str:
    about = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": str(FOLDER / name),
        "CNI_IFNAME": "eth0",
    }
    return do(PLUGINS / plugin, env={**os.environ, **about}, input=json.dumps(SETTINGS))


def reserved() -> list[str]:
    return sorted(path.name for path in Path(SETTINGS["addresses"]).iterdir())


def main() -> None:
    furnish()
    daemon = subprocess.Popen([SHIM, "hub", sys.argv[3], "sleep", "1000"])
    assert until(lambda: relays(daemon.pid))
    told: dict[str, Any] = {}
    for name in ("one", "two"):
        (FOLDER / name).touch()
        do("unshare", f"--net={FOLDER / name}", "true")
        plug("ADD", name, "loopback")
        told[name] = json.loads(plug("ADD", name, "buildonce-hub"))
    address = told["two"]["ips"][0]["address"].partition("/")[0]
    (FOLDER / "word").write_text("from two")
    inside = ["nsenter", f"--net={FOLDER / 'two'}", sys.executable, "-c", SERVE]
    server = subprocess.Popen(inside, cwd=FOLDER, stderr=subprocess.DEVNULL)
    asked = do("nsenter", f"--net={FOLDER / 'one'}", sys.executable, "-c", ASK, address)
    server.kill()
    server.wait()
    before = reserved()
    for _ in range(2):
        plug("DEL", "two", "buildonce-hub")
    told |= {**json.loads(asked), "before": before, "after": reserved()}
    daemon.kill()
    daemon.wait()
    print(json.dumps({**told, "ended": until(lambda: not relays(daemon.pid))}))


main()
