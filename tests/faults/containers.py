"""Processes in place of containers, which outlive whoever started them, as containers do.

Each has a file in a folder, so that the next pipeline finds it. A container runtime would need a
second for each; the real ones are in tests/e2e.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from buildonce.delivery.containers import ContainerSpec, ContainerState
from buildonce.delivery.errors import TargetFailed
from buildonce.release import Image

_SERVICE = Path(__file__).with_name("service.py")


class LastingContainers:
    """`Containers` of one machine.

    Files in `troubles` make the runtime fail: "registry" (nothing can be pulled), "refuses"
    (nothing is allowed), "hangs" (the next thing that it is asked takes too long, once).
    """

    def __init__(self, folder: Path, *, troubles: Path, ill: Path) -> None:
        self.folder, self.troubles, self.ill = folder, troubles, ill
        folder.mkdir(parents=True, exist_ok=True)

    def running(self) -> dict[str, str]:
        """Digests of what runs, by name."""
        return {n: o["digest"] for n, o in self._all().items() if _alive(o["pid"], n)}

    def kill_all(self) -> None:
        for name, one in self._all().items():
            if _alive(one["pid"], name):
                os.kill(one["pid"], signal.SIGKILL)

    async def pull(self, image: Image) -> None:
        self._may("pull")
        if (self.troubles / "registry").exists():
            raise TargetFailed(f"pulling {image.reference} failed: connection refused")

    async def network(self, name: str) -> None:
        self._may("make a network")

    async def start(self, spec: ContainerSpec) -> None:
        self._may("start")
        env = {**os.environ, **spec.env, "PORT": str(spec.port), "ILL": str(self.ill)}
        process = subprocess.Popen(
            [sys.executable, "-S", str(_SERVICE), spec.name],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        one = {
            "pid": process.pid,
            "digest": spec.image.digest,
            "labels": dict(spec.labels),
            "spec": {"env": dict(spec.env), "port": spec.port},
        }
        scratch = self.folder / f"{spec.name}.new"
        scratch.write_text(json.dumps(one))
        scratch.replace(self.folder / f"{spec.name}.json")

    async def resume(self, name: str) -> None:
        raise TargetFailed(f"{name} cannot be started again")

    async def inspect(self, name: str) -> ContainerState | None:
        one = self._all().get(name)
        if one is None:
            return None
        return ContainerState(
            name=name,
            running=_alive(one["pid"], name),
            exit_code=0,
            restarts=0,
            started=datetime.now(UTC),
            labels=one["labels"],
            image_id=one["digest"],
        )

    async def digests(self, state: ContainerState) -> frozenset[str]:
        return frozenset({state.image_id})

    async def logs(self, name: str, lines: int = 20) -> str:
        return ""

    async def find(self, labels: Mapping[str, str]) -> list[str]:
        return [n for n, one in self._all().items() if labels.items() <= one["labels"].items()]

    async def remove(self, name: str, *, grace: int = 5) -> None:
        self._may("remove")
        one = self._all().get(name)
        if one is None:
            return
        if _alive(one["pid"], name):
            os.kill(one["pid"], signal.SIGTERM)
            with anyio.fail_after(grace):
                while _alive(one["pid"], name):
                    await anyio.sleep(0.01)
        (self.folder / f"{name}.json").unlink()

    async def remove_network(self, name: str) -> None:
        self._may("remove a network")

    def _all(self) -> dict[str, dict[str, Any]]:
        return {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.json")}

    def _may(self, what: str) -> None:
        if (self.troubles / "refuses").exists():
            raise TargetFailed(f"the runtime may not {what}: permission denied")
        hangs = self.troubles / "hangs"
        if hangs.exists():
            hangs.unlink()
            raise TargetFailed(f"the runtime did not {what} in time")


def _alive(pid: int, name: str) -> bool:
    """Whether it is still that process; one that has ended and was not waited for has no words."""
    try:
        return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
