"""What an environment's HAProxy is configured with: two slots for containers, and who stands in.

Each slot is three servers: the slot itself; a standby of it, which HAProxy uses only while no slot
with weight is up; and a last resort, which it uses only while none of these is up, and asks whether
its health check succeeds or not. So while the previous container is kept at weight 0, a new one
that dies is stood in for by the previous one until somebody decides. And when the only container
dies, requests are tried for some seconds, in which its runtime may start it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SLOTS = ("a", "b")
BACKEND = "app"
FRONTEND = "public"
_NOWHERE = 1  # a port for a slot that is empty; its server is in maintenance

_TEMPLATE = """\
# Written by buildonce; changes are overwritten.
global
    description {description}
    stats socket {socket} mode 600 level admin expose-fd listeners
    stats timeout 1m
    hard-stop-after 60s

defaults
    mode http
    timeout connect 5s
    timeout client 5m
    timeout server 5m
    timeout check 5s
    timeout queue 10s
    timeout tunnel 1h
    timeout http-request 30s
    timeout http-keep-alive 60s
    # What a container that dies did not begin to answer is asked again, elsewhere if need be; but
    # never a request that may have had an effect (RFC 9110, 9.2.2).
    retries 6
    option redispatch 1
    retry-on conn-failure empty-response

frontend {frontend}
    bind 127.0.0.1:{port}
    default_backend {backend}

backend {backend}
    balance roundrobin
    http-request disable-l7-retry unless METH_GET || METH_HEAD || METH_OPTIONS
    http-request set-header X-Forwarded-Proto http
    option forwardfor
    option httpchk
    http-check send meth GET uri {health_path} ver HTTP/1.1 hdr Host 127.0.0.1:{port}
    http-check expect status 200-399
    # A connection that fails has the health check follow at once, so the dead are known in 0.3 s.
    default-server inter 500ms fastinter 100ms fall 3 rise 1
    default-server observe layer4 error-limit 1 on-error fastinter
{servers}
"""


@dataclass(frozen=True)
class Slot:
    """What a slot is to do.

    Attributes:
        port: of its container on 127.0.0.1; None when the slot is empty.
        weight: 0 to 100, its share of the traffic.
        standby: it takes the traffic, whatever its weight, while no slot with weight is up; and
            is asked even unhealthy while there is nobody else.
    """

    port: int | None
    weight: int = 0
    standby: bool = False


def render(
    slots: Mapping[str, Slot], *, description: str, socket: Path, port: int, health_path: str
) -> str:
    """The configuration file.

    Args:
        description: by which the process is known.
        socket: where it takes commands.
        port: where it listens on 127.0.0.1.
        health_path: what it asks of each container.
    """
    lines: dict[str, list[str]] = {"": [], "standby": [], "last": []}
    weights = weights_of(slots)
    for name in SLOTS:
        slot = slots.get(name, Slot(None))
        place = f"127.0.0.1:{slot.port or _NOWHERE}"
        own, standby, last = servers_of(name)
        off = " disabled" if slot.port is None else ""
        lines[""].append(f"server {own} {place} check weight {weights.get(name, 0)}{off}")
        off = "" if slot.port is not None and slot.standby else " disabled"
        lines["standby"].append(f"server {standby} {place} backup track {BACKEND}/{own}{off}")
        lines["last"].append(f"server {last} {place} backup{off}")
    return _TEMPLATE.format(
        description=description,
        socket=_quoted(str(socket)),
        port=port,
        frontend=FRONTEND,
        backend=BACKEND,
        health_path=_quoted(health_path),
        # Of the backups HAProxy uses the first one that is up.
        servers="\n".join(f"    {line}" for group in lines.values() for line in group),
    )


def weights_of(slots: Mapping[str, Slot]) -> dict[str, int]:
    """The shares in lowest terms: 1 to 9 for 10 to 90.

    HAProxy spreads requests evenly over a turn, which is as long as the sum of the weights, and
    until the turn ends in which weights were changed, it may give 24 % where 10 % are meant.
    """
    divisor = math.gcd(*(slot.weight for slot in slots.values())) or 1
    return {name: slot.weight // divisor for name, slot in slots.items()}


def servers_of(slot: str) -> tuple[str, str, str]:
    """The names of a slot's servers: itself, its standby, its last resort."""
    return slot, f"{slot}-standby", f"{slot}-last"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
