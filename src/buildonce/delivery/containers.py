"""Containers through the command line that podman and docker share.

    containers = RuntimeContainers(ContainerRuntime(("podman",), {"CONTAINERS_CONF": "…"}))
    await containers.pull(image)                      # by digest, and verified
    await containers.start(ContainerSpec(...))
    state = await containers.inspect(name)

`Containers` is what the local target needs; tests put plain processes in its place.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Protocol

import anyio

from buildonce import places
from buildonce.delivery.errors import TargetFailed, WrongDigest
from buildonce.loopback import is_loopback
from buildonce.release import Image

CONTAINER_PORT = 8080
"""Where a deployed image listens."""


@dataclass(frozen=True)
class ContainerRuntime:
    """How to call podman or docker on this machine.

    Args:
        command: the command and leading arguments: ("podman",).
        env: variables to set for it beside those of this process (CONTAINERS_CONF, DOCKER_HOST).
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "podman" or "docker", by the command's name."""
        # "docker" is podman on some machines.
        found = shutil.which(self.command[0]) or self.command[0]
        return "podman" if "podman" in Path(found).resolve().name else "docker"


@dataclass(frozen=True)
class ContainerSpec:
    """What is started. `port` is published on 127.0.0.1 for the container's CONTAINER_PORT."""

    name: str
    image: Image
    network: str
    port: int
    env: Mapping[str, str]
    labels: Mapping[str, str]
    mounts: Mapping[str, str] = field(default_factory=dict)  # host folder -> place, read-only


@dataclass(frozen=True)
class ContainerState:
    """What the runtime says of a container."""

    name: str
    running: bool
    exit_code: int
    restarts: int
    started: datetime
    labels: Mapping[str, str]
    image_id: str


class Containers(Protocol):
    """Containers on this machine. Failures are `TargetFailed`."""

    async def pull(self, image: Image) -> None:
        """Have the image here; `WrongDigest` when the runtime then holds another one."""

    async def network(self, name: str) -> None:
        """Have the network."""

    async def start(self, spec: ContainerSpec) -> None:
        """Create and start; the image is here already."""

    async def resume(self, name: str) -> None:
        """Start a stopped container again."""

    async def inspect(self, name: str) -> ContainerState | None:
        """Its state; None when there is none of that name."""

    async def digests(self, state: ContainerState) -> frozenset[str]:
        """The digests under which the runtime knows the image that the container runs."""

    async def logs(self, name: str, lines: int = 20) -> str:
        """The last lines that it wrote."""

    async def find(self, labels: Mapping[str, str]) -> list[str]:
        """Names of all containers, stopped ones too, that have these labels."""

    async def remove(self, name: str, *, grace: int = 5) -> None:
        """Stop (SIGTERM, after `grace` seconds SIGKILL) and remove; nothing to do is no failure."""

    async def remove_network(self, name: str) -> None:
        """Remove the network; nothing to do is no failure."""


_NETWORK_TRIES = 5
_NETWORK_PAUSE = 0.2  # seconds


class RuntimeContainers:
    """`Containers` by the podman or docker command."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self.runtime = runtime

    async def pull(self, image: Image) -> None:
        if not await self._holds(image):
            insecure = ["--tls-verify=false"] if self._plain_http(image) else []
            await self._run("pull", "--quiet", *insecure, image.reference, what="pull the image")
            if not await self._holds(image):
                raise WrongDigest(
                    f"after pulling {image.reference}, {self.runtime.name} does not hold that "
                    "digest",
                    remedy=f"{' '.join(self.runtime.command)} image inspect {image.reference}",
                )

    async def network(self, name: str) -> None:
        for left in reversed(range(_NETWORK_TRIES)):
            if await self._inspect("network", name) is not None:
                return
            try:
                await self._run("network", "create", name, what=f"make the network {name}")
                return
            except TargetFailed as error:
                # podman looks at the machine's interfaces while others' containers end, and take
                # theirs away.
                if not left or "no such network interface" not in error.message:
                    raise
            await anyio.sleep(_NETWORK_PAUSE)

    async def start(self, spec: ContainerSpec) -> None:
        # Values do not go on the command line, where every user can read them, but for those whose
        # name also means something to the runtime itself.
        hidden = {key: value for key, value in spec.env.items() if not self._heeds(key)}
        shown = [f"--env={key}={value}" for key, value in spec.env.items() if key not in hidden]
        names = [*shown, *(f"--env={key}" for key in hidden)]
        labels = [f"--label={key}={value}" for key, value in spec.labels.items()]
        mounts = [f"--volume={host}:{place}:ro" for host, place in spec.mounts.items()]
        if mounts:  # SELinux would else ask to relabel folders that are not the container's
            mounts.append("--security-opt=label=disable")
        await self._run(
            "run",
            "--detach",
            "--pull=never",
            f"--name={spec.name}",
            f"--network={spec.network}",
            f"--publish=127.0.0.1:{spec.port}:{CONTAINER_PORT}",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--restart=on-failure:5",
            *labels,
            *mounts,
            *names,
            spec.image.reference,
            what=f"start {spec.image.reference}",
            variables=hidden,
        )

    async def resume(self, name: str) -> None:
        await self._run("start", name, what=f"start the container {name} again")

    async def inspect(self, name: str) -> ContainerState | None:
        found = await self._inspect("container", name)
        if found is None:
            return None
        state = found["State"]
        return ContainerState(
            name=name,
            running=bool(state["Running"]),
            exit_code=int(state["ExitCode"]),
            restarts=int(found.get("RestartCount") or 0),
            started=_time(state["StartedAt"]),
            labels=found["Config"].get("Labels") or {},
            image_id=found["Image"],
        )

    async def digests(self, state: ContainerState) -> frozenset[str]:
        found = await self._inspect("image", state.image_id)
        if found is None:
            return frozenset()
        names: list[str] = found.get("RepoDigests") or []
        return frozenset(name.rpartition("@")[2] for name in names)

    async def logs(self, name: str, lines: int = 20) -> str:
        done = await self._call("logs", f"--tail={lines}", name)
        # A container's stderr comes on ours; without a time on each, the order between is lost.
        return "\n".join(part.strip() for part in done[1:] if part.strip())

    async def find(self, labels: Mapping[str, str]) -> list[str]:
        filters = [f"--filter=label={key}={value}" for key, value in labels.items()]
        text = await self._run(
            "ps", "--all", *filters, "--format={{.Names}}", what="list the containers"
        )
        return text.split()

    async def remove(self, name: str, *, grace: int = 5) -> None:
        if await self._inspect("container", name) is None:
            return
        await self._call("stop", "-t", str(grace), name)
        code, _, complaint = await self._call("rm", "--force", "--volumes", name)
        if code != 0 and await self._inspect("container", name) is not None:
            raise self._failed(f"remove the container {name}", complaint, ("rm", "--force", name))

    async def remove_network(self, name: str) -> None:
        if await self._inspect("network", name) is not None:
            await self._run("network", "rm", name, what=f"remove the network {name}")

    async def _holds(self, image: Image) -> bool:
        found = await self._inspect("image", image.reference)
        if found is None:
            return False
        names: list[str] = found.get("RepoDigests") or []
        return any(name.rpartition("@")[2] == image.digest for name in names)

    def _heeds(self, variable: str) -> bool:
        return variable in os.environ or variable in self.runtime.env or variable.startswith("LD_")

    def _plain_http(self, image: Image) -> bool:
        # docker speaks plain HTTP to loopback by itself, podman has to be told.
        return self.runtime.name == "podman" and is_loopback(image.repository.partition("/")[0])

    async def _inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        code, out, complaint = await self._call(kind, "inspect", name)
        if code == 0:
            found: list[dict[str, Any]] = json.loads(out)
            return found[0]
        if any(words in complaint.lower() for words in ("no such", "not found", "not known")):
            return None
        raise self._failed(f"inspect the {kind} {name}", complaint, (kind, "inspect", name))

    async def _run(self, *args: str, what: str, variables: Mapping[str, str] | None = None) -> str:
        code, out, complaint = await self._call(*args, variables=variables)
        if code != 0:
            raise self._failed(what, complaint, args[:1])
        return out

    def _failed(self, what: str, complaint: str, args: tuple[str, ...]) -> TargetFailed:
        lines = [line for line in complaint.splitlines() if line.strip()]
        cause = lines[-1] if lines else "it gave no message"
        return TargetFailed(
            f"{self.runtime.name} could not {what}: {cause}",
            remedy="buildonce doctor",
        )

    async def _call(
        self, *args: str, variables: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        command = [*self.runtime.command, *args]
        try:
            done = await anyio.run_process(
                command,
                check=False,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                env={**os.environ, **(variables or {}), **self.runtime.env},
                # The container's monitor lives on: it must not get this terminal's Ctrl-C.
                start_new_session=True,
            )
        except OSError as error:
            raise TargetFailed(
                f"the container runtime {command[0]} cannot be run: {error.strerror}",
                remedy="buildonce doctor",
            ) from error
        return (
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )


async def detect_runtime() -> ContainerRuntime:
    """The first of docker and podman that answers.

    podman is given the `containers.conf` in the user's cache, which the set-up writes on machines
    where podman needs one, unless the user has set CONTAINERS_CONF.

    Raises:
        TargetFailed: neither works.
    """
    reasons: list[str] = []
    for name in ("docker", "podman"):
        path = shutil.which(name)
        if path is None:
            reasons.append(f"{name} is not installed")
            continue
        name = Path(path).resolve().name  # "docker" is podman on some machines
        configuration = places.cache() / "containers.conf"
        env: dict[str, str] = {}
        if name == "podman" and "CONTAINERS_CONF" not in os.environ and configuration.exists():
            env["CONTAINERS_CONF"] = str(configuration)
        # `docker version` fails without a daemon, `info` not always. podman's `info` takes 0.4 s to
        # ask the package manager about itself; listing containers shows that it works in 0.04 s.
        asks = ["ps", "--quiet", "--last", "1"] if name == "podman" else ["version"]
        done = await anyio.run_process(
            [path, *asks], check=False, stdout=PIPE, stderr=PIPE, env={**os.environ, **env}
        )
        if done.returncode == 0:
            return ContainerRuntime((path,), env)
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        reasons.append(f"{name}: {complaint[-1] if complaint else 'gave no reason'}")
    raise TargetFailed(
        f"no container runtime works here: {'; '.join(reasons)}", remedy="buildonce doctor"
    )


def _time(text: str) -> datetime:
    # Go prints nanoseconds, which Python's parser does not take.
    head, dot, tail = text.partition(".")
    if dot:
        digits = tail.rstrip("Z")
        fraction, sign, zone = digits, "", ""
        for mark in "+-":
            if mark in digits:
                fraction, sign, zone = digits.partition(mark)
        text = f"{head}.{fraction[:6]}{sign}{zone}" + ("Z" if tail.endswith("Z") else "")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
