"""Plain processes in place of containers: the real proxy and real sockets, without a runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio

from buildonce.delivery.containers import ContainerSpec, ContainerState
from buildonce.delivery.errors import TargetFailed
from buildonce.release import Image

SERVICE = Path(__file__).with_name("service.py")


@dataclass
class _Process:
    spec: ContainerSpec
    process: subprocess.Popen[bytes]
    started: datetime
    log: Path


class ProcessContainers:
    """`Containers` whose images are all the test service.

    `broken` maps an image digest to a value of the service's BREAK; `refuse` names operations that
    fail.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken: dict[str, str] = {}
        self.refuse: set[str] = set()
        self.pulled: list[str] = []
        self.networks: set[str] = set()
        self._all: dict[str, _Process] = {}

    def running(self) -> list[str]:
        return sorted(n for n, one in self._all.items() if one.process.poll() is None)

    def kill(self, name: str) -> None:
        self._all[name].process.kill()
        self._all[name].process.wait()

    def close(self) -> None:
        for name in list(self._all):
            self.kill(name)

    async def pull(self, image: Image) -> None:
        self._may("pull")
        self.pulled.append(image.digest)

    async def network(self, name: str) -> None:
        self._may("network")
        self.networks.add(name)

    async def start(self, spec: ContainerSpec) -> None:
        self._may("start")
        assert spec.name not in self._all, "a container of that name exists"
        assert spec.network in self.networks, "no such network"
        self._spawn(spec)

    async def resume(self, name: str) -> None:
        self._may("resume")
        self._spawn(self._all[name].spec)

    async def inspect(self, name: str) -> ContainerState | None:
        one = self._all.get(name)
        if one is None:
            return None
        code = one.process.poll()
        return ContainerState(
            name=name,
            running=code is None,
            exit_code=code or 0,
            restarts=0,
            started=one.started,
            labels=one.spec.labels,
            image_id=one.spec.image.digest,
        )

    async def digests(self, state: ContainerState) -> frozenset[str]:
        return frozenset({state.image_id})

    async def logs(self, name: str, lines: int = 20) -> str:
        return "\n".join(self._all[name].log.read_text().splitlines()[-lines:])

    async def find(self, labels: Mapping[str, str]) -> list[str]:
        return [n for n, o in self._all.items() if labels.items() <= o.spec.labels.items()]

    async def remove(self, name: str, *, grace: int = 5) -> None:
        self._may("remove")
        one = self._all.get(name)
        if one is not None:
            one.process.terminate()
            await anyio.to_thread.run_sync(one.process.wait)
            del self._all[name]

    async def remove_network(self, name: str) -> None:
        self.networks.discard(name)

    def _may(self, operation: str) -> None:
        if operation in self.refuse:
            raise TargetFailed(f"the runtime could not {operation}")

    def _spawn(self, spec: ContainerSpec) -> None:
        env = {**os.environ, **spec.env, "PORT": str(spec.port)}
        if spec.image.digest in self.broken:
            env["BREAK"] = self.broken[spec.image.digest]
        log = self.folder / f"{spec.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-S", str(SERVICE)], env=env, stdout=out, stderr=out
            )
        self._all[spec.name] = _Process(spec, process, datetime.now(UTC), log)
