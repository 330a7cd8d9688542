"""The container runtime that releases run on: a working docker, else podman.

    runtime = await containers.runtime()
    subprocess.run([*runtime.command, "ps"], env={**os.environ, **runtime.env})

Some machines (containers in containers, micro-VMs) lack what podman takes for granted: the right to
raise limits, or cgroups v2. There podman gets a `containers.conf` of ours, in the user's cache and
only by the variable `CONTAINERS_CONF`: nothing of the machine's configuration is changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain.binaries import find
from buildonce.toolchain.whole import write_whole

CONF_VARIABLE = "CONTAINERS_CONF"
_CAP_SYS_RESOURCE = 24
_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class ContainerRuntime:
    """How to call podman or docker on this machine.

    Args:
        command: the command and leading arguments: ("podman",).
        env: variables to set for it beside those of this process.
        version: what the daemon or program says its version is.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    @property
    def name(self) -> str:
        """ "docker" or "podman"."""
        return Path(self.command[0]).name


@dataclass(frozen=True)
class Machine:
    """The facts that decide what podman needs here."""

    root: bool
    may_raise_limits: bool
    cgroup2: bool
    runc: bool
    files: int
    processes: int
    tun: bool
    subordinate_ids: bool

    @classmethod
    def this(cls) -> Machine:
        """Read them; a millisecond, runs nothing."""
        pid_max = int(_read("/proc/sys/kernel/pid_max") or 32768)
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        return cls(
            root=os.geteuid() == 0,
            may_raise_limits=_has_capability(_CAP_SYS_RESOURCE),
            cgroup2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
            runc=find("runc") is not None,
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            # podman lowers its own limit to pid_max: more cannot be set from there.
            processes=pid_max if processes < 0 else min(processes, pid_max),
            tun=os.access("/dev/net/tun", os.R_OK | os.W_OK),
            subordinate_ids=_has_subordinate_ids(),
        )


def configuration(machine: Machine) -> str | None:
    """The `containers.conf` that podman needs on such a machine; None when it needs none."""
    engine: list[str] = []
    containers: list[str] = []
    if not machine.cgroup2 and machine.runc:
        # crun refuses the hybrid of cgroups v1 and v2.
        engine.append('runtime = "runc"')
    if machine.root and not machine.may_raise_limits:
        limits = f'"nofile={machine.files}:{machine.files}"'
        limits += f', "nproc={machine.processes}:{machine.processes}"'
        containers.append(f"default_ulimits = [{limits}]")
    if not engine and not containers:
        return None
    lines = ["# Written by buildonce: what podman needs on this machine."]
    lines += ["[engine]", *engine] if engine else []
    lines += ["[containers]", *containers] if containers else []
    return "\n".join(lines) + "\n"


def environment() -> dict[str, str]:
    """Variables that podman needs here; written to the cache first where it needs a file.

    A `CONTAINERS_CONF` of the user's own stands. A few milliseconds.
    """
    if os.environ.get(CONF_VARIABLE) or shutil.which("podman") is None:
        return {}
    content = configuration(Machine.this())
    if content is None:
        return {}
    file = places.cache() / "containers.conf"
    if _read(str(file)) != content.strip():
        write_whole(file, content)
    return {CONF_VARIABLE: str(file)}


async def runtime() -> ContainerRuntime:
    """The container runtime of this machine: docker when its daemon answers, else podman.

    Raises:
        BuildonceError: neither works; says why not.
    """
    reasons: list[str] = []
    docker = _docker()
    if docker:
        answer = await _ask(docker, "version", "--format", "{{.Server.Version}}")
        if answer.returncode == 0 and answer.stdout.strip():
            return ContainerRuntime((docker,), {}, answer.stdout.strip())
        reasons.append(f"docker: {_reason(answer)}")
    else:
        reasons.append("docker is not installed")
    podman = shutil.which("podman")
    if podman is None:
        reasons.append("podman is not installed")
    else:
        env = await anyio.to_thread.run_sync(environment)
        if problem := podman_problem(Machine.this()):
            reasons.append(f"podman: {problem[0]}")
        else:
            # Not `info`, which takes 0.4 s to ask the package manager about itself.
            answer = await _ask(podman, "ps", "--quiet", "--last", "1", env=env)
            if answer.returncode == 0:
                told = await _ask(podman, "version", "--format", "{{.Client.Version}}", env=env)
                return ContainerRuntime((podman,), env, told.stdout.strip())
            reasons.append(f"podman: {_reason(answer)}")
    remedy = "`buildonce setup` installs podman where it may (root or sudo)"
    if podman and (problem := podman_problem(Machine.this())):
        remedy = problem[1]
    raise BuildonceError(f"no container runtime works here: {'; '.join(reasons)}", remedy=remedy)


def podman_problem(machine: Machine) -> tuple[str, str] | None:
    """What keeps an ordinary user's podman from working here, and what to type; None if nothing."""
    if machine.root:
        return None
    if not machine.subordinate_ids:
        return (
            "this user has no subordinate user ids (/etc/subuid, /etc/subgid)",
            'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"',
        )
    if not machine.tun:
        return (
            "/dev/net/tun cannot be opened, which the network of a user's containers needs",
            "sudo chmod 0666 /dev/net/tun",
        )
    return None


async def docker_answers() -> str | None:
    """The version of the docker daemon, None when there is none that this user may speak to."""
    docker = _docker()
    if docker is None:
        return None
    answer = await _ask(docker, "version", "--format", "{{.Server.Version}}")
    return answer.stdout.strip() or None if answer.returncode == 0 else None


async def prove(using: ContainerRuntime, image: str) -> None:
    """Run `true` in `image` with a published port.

    Raises:
        BuildonceError: it cannot be pulled or does not run.
    """
    # docker speaks plain HTTP to loopback by itself, podman has to be told.
    insecure = ["--tls-verify=false"] if using.name == "podman" else []
    pulled = await _ask(*using.command, "pull", "--quiet", *insecure, image, env=using.env)
    if pulled.returncode != 0:
        raise BuildonceError(
            f"{using.name} cannot pull {image}: {_reason(pulled)}",
            remedy="`buildonce registry status` says whether the registry runs",
        )
    ran = await _ask(
        *(*using.command, "run", "--rm", "--publish", "127.0.0.1::8080", image, "true"),
        env=using.env,
    )
    if ran.returncode != 0:
        raise BuildonceError(
            f"{using.name} runs no container here: {_reason(ran)}",
            remedy=f"try `{using.name} run --rm {image} true`; `buildonce doctor` lists what "
            "this machine lacks",
        )


def _docker() -> str | None:
    """The docker command, unless it is podman under that name."""
    docker = shutil.which("docker")
    return None if docker is None or "podman" in Path(docker).resolve().name else docker


async def _ask(
    *command: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    def call() -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ANSWER_SECONDS * 6,
                check=False,
                env={**os.environ, **(env or {})},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))

    return await anyio.to_thread.run_sync(call)


def _reason(answer: subprocess.CompletedProcess[str]) -> str:
    lines = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
    return lines[-1].removeprefix("Error: ") if lines else f"ended with {answer.returncode}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""


def _has_capability(number: int) -> bool:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _has_subordinate_ids() -> bool:
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    owners = (name, str(os.geteuid()))
    return all(
        any(line.split(":")[0] in owners for line in _read(file).splitlines())
        for file in ("/etc/subuid", "/etc/subgid")
    )
