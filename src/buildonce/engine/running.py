"""What a service is while it runs: a container of the daemon, or a tunnel on the host."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from buildonce.engine import health, lowering
from buildonce.engine.buildkit import BuildkitError, Container, ExecSpec, Process, Relay, shim
from buildonce.engine.buildkit.container import STDERR, STDOUT
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.errors import ExecFailed, QueryFailed
from buildonce.engine.health import HealthCheck
from buildonce.engine.llb import Output
from buildonce.engine.states import DEFAULT_PATH, MountKind, ServiceState
from buildonce.engine.text import text
from buildonce.loopback import is_loopback

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

START_TIMEOUT = 600.0  # seconds until a service that exposes ports must listen
STOP_TIMEOUT = 10.0  # seconds a service has between SIGTERM and SIGKILL; as Dagger and Docker


class Running:
    """A service that has started.

    Attributes:
        address: the IP address that its ports are reached at, by commands.
        ports: the numbers of the ports that it listens on.
    """

    def __init__(self, address: str, ports: Sequence[int], stack: AsyncExitStack) -> None:
        self.address = address
        self.ports = tuple(ports)
        self.container: Container | None = None
        self.process: Process | None = None
        self._stack = stack
        self._over = asyncio.Event()
        self.exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it ended, by itself or because it was stopped."""
        return self._over.is_set()

    def mark_ended(self) -> None:
        """Note that its process is gone."""
        self._over.set()

    async def wait(self) -> None:
        """Until it has ended."""
        await self._over.wait()

    async def stop(self, *, kill: bool = False) -> None:
        """End it: politely first, unless `kill`."""
        if self.process is not None and not self.ended:
            await self.process.signal("KILL" if kill else "TERM")
            try:
                await asyncio.wait_for(self._over.wait(), STOP_TIMEOUT)
            except TimeoutError:
                await self.process.signal("KILL")
        self._over.set()
        await self._stack.aclose()


async def run_service(
    engine: Engine, service: ServiceState, stack: AsyncExitStack, log: deque[bytes]
) -> Running:
    """Start the container of a service and wait until its ports listen.

    Raises:
        ExecFailed: its command ended before they did.
        QueryFailed: they did not within `START_TIMEOUT`.
    """
    if not engine.own_networks:
        reason = f" ({engine.network_reason})" if engine.network_reason else ""
        engine.steps.note(
            f"containers share the network of the machine that runs them{reason}: services are "
            "reached at its 127.0.0.1, and two of them cannot listen on the same port"
        )
    if service.container is None and not _relayed(engine, service):
        return Running("127.0.0.1", [front for front, _, _ in service.forwards], stack)
    mounts = await _mounts(engine, service)
    container = await stack.enter_async_context(engine.build.container(mounts))
    specification = _specification(engine, service)
    env, cwd, user = {"PATH": DEFAULT_PATH}, "/", ""
    secret_env: dict[str, str] = {}
    ports = [front for front, _, _ in service.forwards]
    checked = ports
    if service.container is not None:
        image = service.container.image
        env |= dict(image.env)
        cwd, user = service.container.workdir, image.user
        secret_env = {name: secret.identity for name, secret in service.container.secrets}
        secret_env[shim.HOST] = lowering.HOST_SETTINGS_ID
        ports = [port.number for port in image.ports]
        checked = [p.number for p in image.ports if p.health_check and p.protocol == "TCP"]
    env[lowering.SPECIFICATION] = specification.to_json()
    said: dict[int, deque[bytes]] = {
        stream: deque(maxlen=log.maxlen) for stream in (STDOUT, STDERR)
    }

    def on_output(stream: int, data: bytes) -> None:
        log.append(data)
        said[stream].append(data)

    start = partial(container.start, cwd=cwd, user=user, secret_env=secret_env)
    process = await stack.enter_async_context(
        start([lowering.SHIM], env=env, privileged=service.privileged, on_output=on_output)
    )
    running = Running("", ports, stack)
    running.container, running.process = container, process
    watcher = asyncio.create_task(_watch(process, running))
    stack.callback(watcher.cancel)
    running.address = await _address(engine, container, running)
    check = health.read(service.container.image.rest) if service.container is not None else None
    if check is not None:
        command = replace(specification, args=check.command)
        env = {**env, lowering.SPECIFICATION: command.to_json()}
        await _well(lambda: start([lowering.SHIM, "check"], env=env), service, check, running, said)
    elif checked:
        await _listening(container, service, checked, running, log, said)
    return running


async def _watch(process: Process, running: Running) -> None:
    try:
        running.exit_code = await process.wait()
    finally:
        running.mark_ended()


async def _well(
    start: Callable[[], AbstractAsyncContextManager[Process]],
    service: ServiceState,
    check: HealthCheck,
    running: Running,
    said: Mapping[int, deque[bytes]],
) -> None:
    """Until the service's own health check has passed.

    Args:
        start: runs it inside the service's container.
    """
    begun, failures = time.monotonic(), 0
    while True:
        try:
            async with start() as process:
                answer, stderr = await process.communicate()
                await process.wait()
        except BuildkitError:
            if not await _ended(running):
                raise
        if running.ended and running.process is not None:
            raise _ended_early(service, await running.process.wait(), said)
        stdout, _, code = answer.rpartition(b"\n")
        if code == b"0":
            return
        if time.monotonic() - begun >= check.start_period / 1e9:
            failures += 1
        if failures == check.tries:
            told = text(stdout).strip(), text(stderr).strip()
            raise ExecFailed(
                check.command,
                int(code),
                *told,
                message=f"health check errored: exit code: {code.decode()}",
            )
        await asyncio.sleep(check.pause)


async def _listening(
    container: Container,
    service: ServiceState,
    ports: Sequence[int],
    running: Running,
    log: deque[bytes],
    said: Mapping[int, deque[bytes]],
) -> None:
    """Until all `ports` listen, asked from inside: only there is the answer to be trusted."""
    wanted = [f"{port}/tcp" for port in ports]
    question = ["wait", "--timeout", f"{START_TIMEOUT:.0f}s", *wanted]
    if await _ask_inside(container, running, question) is not None:
        return
    shown = ", ".join(wanted)
    if running.ended and running.process is not None:
        raise _ended_early(service, await running.process.wait(), said)
    raise QueryFailed(
        f"the service {' '.join(service.args) or service.host} did not listen on {shown} within "
        f"{START_TIMEOUT:.0f} s; its last output:\n" + text(b"".join(log))
    )


def _ended_early(service: ServiceState, code: int, said: Mapping[int, deque[bytes]]) -> QueryFailed:
    if code == 0:
        return QueryFailed("service exited before healthcheck")
    stdout, stderr = (text(b"".join(said[stream])) for stream in (STDOUT, STDERR))
    return ExecFailed(service.args, code, stdout, stderr)


async def _address(engine: Engine, container: Container, running: Running) -> str:
    """The IP address of the container's network namespace; loopback when it has the host's."""
    if not engine.own_networks:
        return "127.0.0.1"
    found = await _ask_inside(container, running, ["address"])
    return found.decode().strip() if found else "127.0.0.1"  # or it has ended: nothing to reach


async def _ask_inside(
    container: Container, running: Running, question: Sequence[str]
) -> bytes | None:
    """What the shim answers inside a service's container; None if the answer is no, or the
    service has ended."""
    probe = container.start([lowering.SHIM, *question], env={"PATH": DEFAULT_PATH})
    try:
        async with probe as process:
            answer, _ = await process.communicate()
            if await process.wait() == 0:
                return answer
    except BuildkitError:
        if not await _ended(running):
            raise
    await _ended(running)
    return None


async def _ended(running: Running) -> bool:
    """Whether it has, which the daemon may tell after it has ended our other processes there."""
    with anyio.move_on_after(1):
        await running.wait()
    return running.ended


def _relayed(engine: Engine, service: ServiceState) -> Sequence[tuple[int, int, str]]:
    """The forwards of a host's service that a container has to listen for.

    Commands that share this machine's network reach its ports as they are; and the port itself is
    taken, by the very service that is meant.
    """
    here = engine.options.address is None and not engine.own_networks and is_loopback(service.host)
    return [one for one in service.forwards if not here or one[0] != one[1]]


def _specification(engine: Engine, service: ServiceState) -> ExecSpec:
    if service.container is None:
        relays = [
            Relay(f"0.0.0.0:{front}", f"{lowering.ROOT}/port-{back}")
            for front, back, _ in _relayed(engine, service)
        ]
        return ExecSpec(args=[lowering.SHIM, "relay"], relays=relays)
    return ExecSpec(
        args=service.args,
        tracing=lowering.tracing(service.container.image.env),
        secret_env=[name for name, _ in service.container.secrets],
        secret_files=[m.target for m in service.container.mounts if m.secret is not None],
    )


async def _mounts(engine: Engine, service: ServiceState) -> list[pb.Mount]:
    """The service's mounts, each file system solved and named by its reference."""

    async def bind(
        target: str, output: Output | None, path: str = "/", read_only: bool = False
    ) -> pb.Mount:
        mount = pb.Mount(dest=target, readonly=read_only, input=-1, output=-1)
        mount.resultID = await engine.reference(output)
        if path != "/":
            mount.selector = path
        return mount

    container = service.container
    mounts = [
        await bind("/", container.rootfs if container else None),
        await bind(lowering.SHIM, engine.shim, "/shim", read_only=True),
    ]
    if container is None:
        for _, back, _ in service.forwards:
            identity = f"tcp:{service.host}:{back}"
            engine.services.sockets.add(identity)
            option = pb.SSHOpt(ID=identity, mode=0o600)
            target = f"{lowering.ROOT}/port-{back}"
            mounts.append(pb.Mount(dest=target, input=-1, mountType=pb.SSH, SSHOpt=option))
        return mounts
    op = pb.Op()
    numbered = lowering.Mounts(op)
    lowering.host(numbered)
    lowering.user_mounts(numbered, container)
    lowering.hosts_file(engine, numbered, container)
    laid = {m.target: m for m in container.mounts}
    for mount in op.exec.mounts:
        known = laid.get(mount.dest)
        if known is not None and known.output is not None:
            mount.resultID = await engine.reference(known.output)
        if known is not None and known.kind is MountKind.DIRECTORY:
            mount.readonly = known.read_only
        mount.input = -1
        mounts.append(mount)
    return mounts
