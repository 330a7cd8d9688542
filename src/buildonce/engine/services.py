"""Services: long-running commands that other commands reach by an alias.

A service is started when a command that is bound to it really runs, and only then: the command's
`/etc/hosts` is a secret mount, which BuildKit asks for at that moment. So a cached command starts
nothing, and a service's address is in no cache key, while what it runs is (through the name of
that secret). Services of equal recipes are one; each ends a while after its last user.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from buildonce.engine import health, llb
from buildonce.engine.errors import QueryFailed
from buildonce.engine.llb import Output
from buildonce.engine.running import Running, run_service
from buildonce.engine.states import Binding, ContainerState, Port, ServiceState
from buildonce.engine.text import text as as_text
from buildonce.engine.tunnels import run_tunnel

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

T = TypeVar("T")

LINGER = 10.0  # seconds a service stays after its last user: the next is often close behind
LAST_LINES = 40
WATCHED = 0.25  # seconds between looks at the services of a running command

# The last is what BuildKit calls a container that has no name of its own.
_LOCALHOST = (
    "127.0.0.1\tlocalhost dagger\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    "127.0.0.1\tbuildkitsandbox\n"
)


@dataclass(eq=False)
class _Use:
    """A service of this session, and who needs it.

    Attributes:
        pinned: was started by name (`Service.start`), so it stays until it is stopped by name.
    """

    service: ServiceState
    users: int = 0
    pinned: bool = False
    running: Running | None = None
    failure: QueryFailed | None = None
    ending: asyncio.Task[None] | None = None
    log: deque[bytes] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @property
    def alive(self) -> Running | None:
        """It, unless it has not been started or has ended."""
        return self.running if self.running is not None and not self.running.ended else None


@dataclass(frozen=True)
class _Bond:
    """A command, by its vertex, that needs a service, and what to say when that has ended."""

    vertex: str
    use: _Use
    lost: str


def _called(binding: Binding) -> str:
    return f"{binding.service.name} (aliased as {binding.alias})"


def _lost(binding: Binding) -> str:
    return f"bound service {_called(binding)} exited"


class Services:
    """The services of one session."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._uses: dict[str, _Use] = {}
        self._hosts: dict[str, tuple[Binding, ...]] = {}
        self._bound: dict[str, tuple[Binding, ...]] = {}
        self.sockets: set[str] = set()

    # -- what they are ----------------------------------------------------------------------

    def of_container(
        self, container: ContainerState, args: Sequence[str], *, privileged: bool = False
    ) -> ServiceState:
        """The service that runs `args` in `container`."""
        text = json.dumps([_digest_of(container), list(args), privileged])
        identity = hashlib.sha256(text.encode()).hexdigest()
        return ServiceState(identity, container, tuple(args), privileged=privileged)

    def to_host(self, host: str, forwards: Sequence[tuple[int, int, str]]) -> ServiceState:
        """The service that leads to ports of the client's machine."""
        listening = tuple((front or back, back, protocol) for front, back, protocol in forwards)
        text = json.dumps(["host", host, listening])
        identity = hashlib.sha256(text.encode()).hexdigest()
        return ServiceState(identity, host=host, forwards=listening)

    def from_host(
        self, upstream: ServiceState, forwards: Sequence[tuple[int, int, str]], *, native: bool
    ) -> ServiceState:
        """The service that leads from ports of the client's machine to `upstream`."""
        chosen = tuple(forwards)
        if native:
            chosen = tuple((p.number, p.number, "TCP") for p in ports_of(upstream)) + chosen
        elif not chosen:
            chosen = tuple((0, p.number, "TCP") for p in ports_of(upstream))
        if not chosen:
            raise QueryFailed("no ports to forward: the service exposes none")
        text = json.dumps(["tunnel", upstream.identity, chosen])
        identity = hashlib.sha256(text.encode()).hexdigest()
        return ServiceState(identity, forwards=chosen, upstream=upstream)

    def named(self, service: ServiceState, hostname: str) -> ServiceState:
        """The same service by a name of its own, which is another instance."""
        text = json.dumps([service.identity, hostname])
        identity = hashlib.sha256(text.encode()).hexdigest()
        return replace(service, identity=identity, hostname=hostname)

    # -- for commands that are bound to them ------------------------------------------------

    def hosts_file(self, bindings: Sequence[Binding]) -> str:
        """The identity of a hosts file with these aliases; see `hosts_content`."""
        text = json.dumps([[b.alias, b.service.identity] for b in bindings])
        identity = hashlib.sha256(text.encode()).hexdigest()
        self._hosts[identity] = tuple(bindings)
        return identity

    def bind(self, vertex: llb.Vertex, bindings: Sequence[Binding]) -> None:
        """Note that running `vertex` needs the services of `bindings`."""
        self._bound[vertex.digest] = tuple(bindings)

    def bind_like(self, vertex: llb.Vertex, other: llb.Vertex) -> None:
        """Note that running `vertex` needs the services that `other` does."""
        if bindings := self._bound.get(other.digest):
            self.bind(vertex, bindings)

    async def hosts_content(self, identity: str) -> bytes | None:
        """Start what the hosts file `identity` names, and answer its text."""
        bindings = self._hosts.get(identity)
        if bindings is None:
            return None
        started = await asyncio.gather(
            *(self._started_for(binding) for binding in bindings), return_exceptions=True
        )
        lines = [_LOCALHOST]
        for binding, running in zip(bindings, started, strict=True):
            if isinstance(running, BaseException):
                raise running
            lines.append(f"{running.address}\t{binding.alias}\n")
        # Whatever else has been started is reached by its name.
        for use in self._uses.values():
            if (alive := use.alive) is not None:
                lines.append(f"{alive.address}\t{use.service.name}\n")
        return "".join(lines).encode()

    async def _started_for(self, binding: Binding) -> Running:
        use = self._use(binding.service)
        use.failure = None
        try:
            return await self._started(use)
        except QueryFailed as error:
            # The daemon only learns that it gets no hosts file; `failure_of` tells the rest.
            use.failure = error
            raise

    def failure_of(self, output: Output) -> QueryFailed | None:
        """Why a service that `output` is bound to did not start; None if they all did."""
        for binding in self._bindings(output):
            use = self._uses.get(binding.service.identity)
            if use is not None and use.failure is not None:
                failed = QueryFailed(f"start {_called(binding)}: {use.failure}")
                failed.extensions = use.failure.extensions
                return failed
        return None

    @asynccontextmanager
    async def in_use(self, output: Output) -> AsyncIterator[Sequence[_Bond]]:
        """Keep the services that `output` may need for as long as this is entered."""
        bonds = [
            _Bond(vertex, self._use(b.service), _lost(b)) for vertex, b in self._bound_in(output)
        ]
        uses = {bond.use.service.identity: bond.use for bond in bonds}.values()
        for use in uses:
            use.users += 1
        try:
            yield bonds
        finally:
            for use in uses:
                use.users -= 1
                self._perhaps_end(use)

    @asynccontextmanager
    async def reached(self, service: ServiceState) -> AsyncIterator[Running]:
        """A service, started if need be, that stays for as long as this is entered."""
        use = self._use(service)
        use.users += 1
        try:
            yield await self._started(use)
        finally:
            use.users -= 1
            self._perhaps_end(use)

    def _bound_in(self, output: Output) -> list[tuple[str, Binding]]:
        """What the commands that make `output` are bound to, each with its command's vertex."""
        vertices = llb.walk([output]) if self._bound else ()
        return [(v.digest, one) for v in vertices for one in self._bound.get(v.digest, ())]

    def _bindings(self, output: Output) -> list[Binding]:
        """One for each service that they need."""
        return list({one.service.identity: one for _, one in self._bound_in(output)}.values())

    async def last_words(self, output: Output) -> str:
        """The last lines of the services that a failed `output` was bound to."""
        words = ""
        for binding in self._bindings(output):
            use = self._uses.get(binding.service.identity)
            if use and use.log:
                text = as_text(b"".join(use.log))
                words += f"\n--- last output of the service {binding.alias!r} ---\n{text}"
        return words

    async def unless_lost(self, bonds: Sequence[_Bond], work: Coroutine[Any, Any, T]) -> T:
        """The answer of `work`, which runs commands that have these.

        Raises:
            QueryFailed: a service has ended while a command that is bound to it ran.
        """
        if not bonds:
            return await work
        watched = list(bonds)
        for bond in watched:  # a service cannot do without those that it is bound to itself
            container = bond.use.service.container
            watched += [
                _Bond(bond.vertex, self._use(one.service), f"{bond.lost}: {_lost(one)}")
                for one in (container.bindings if container is not None else ())
            ]
        solving, watching = asyncio.ensure_future(work), asyncio.create_task(self._watch(watched))
        try:
            await asyncio.wait({solving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not solving.done():
                raise watching.result()
            return await solving
        finally:
            solving.cancel()
            watching.cancel()
            await asyncio.gather(solving, watching, return_exceptions=True)

    async def _watch(self, bonds: Sequence[_Bond]) -> QueryFailed:
        """Wait until a service ends while its command runs; what is to be said of it."""

        def ended() -> set[Running]:
            return {b.use.running for b in bonds if b.use.running and b.use.running.ended}

        known = ended()
        while True:
            await asyncio.sleep(WATCHED)
            new = ended() - known
            await asyncio.sleep(WATCHED if new else 0)  # the daemon tells late what runs
            known |= new
            for bond in bonds:
                running = bond.use.running  # by now perhaps a later one
                if running in new and self._engine.steps.runs(bond.vertex):
                    said = as_text(b"".join(bond.use.log))
                    code = running.exit_code
                    return QueryFailed(f"{bond.lost}: exit code: {code}; its last output:\n{said}")

    # -- by name ----------------------------------------------------------------------------

    async def start(self, service: ServiceState) -> Running:
        """Start a service and keep it until `stop` or the session's end."""
        use = self._use(service)
        running = await self._started(use)
        use.pinned = True
        return running

    async def stop(self, service: ServiceState, *, kill: bool = False) -> None:
        """End a service, whoever uses it."""
        use = self._uses.get(service.identity)
        if use is not None:
            use.pinned = False
            await self._end(use, kill=kill)

    def by_name(self, host: str) -> ServiceState | None:
        """The service that has been started and is called so."""
        for use in self._uses.values():
            if use.alive is not None and use.service.name == host:
                return use.service
        return None

    async def running(self, service: ServiceState) -> Running:
        """The running service; started if it is not."""
        return await self._started(self._use(service))

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(
            *(self._end(use) for use in list(self._uses.values())), return_exceptions=True
        )

    # -- life -------------------------------------------------------------------------------

    def _use(self, service: ServiceState) -> _Use:
        return self._uses.setdefault(service.identity, _Use(service))

    async def _started(self, use: _Use) -> Running:
        if use.ending is not None:
            use.ending.cancel()
            use.ending = None
        if use.running is None or use.running.ended:
            use.running = await self._engine.once(
                ("service", use.service.identity), lambda: self._start(use)
            )
        return use.running

    async def _start(self, use: _Use) -> Running:
        stack = AsyncExitStack()
        try:
            begin = run_tunnel if use.service.upstream else run_service
            return await begin(self._engine, use.service, stack, use.log)
        except BaseException:
            await stack.aclose()
            raise

    def _perhaps_end(self, use: _Use) -> None:
        if use.users == 0 and not use.pinned and use.running and use.ending is None:
            use.ending = asyncio.create_task(self._end_later(use))

    async def _end_later(self, use: _Use) -> None:
        await asyncio.sleep(LINGER)
        use.ending = None
        if use.users == 0 and not use.pinned:
            await self._end(use)

    async def _end(self, use: _Use, *, kill: bool = False) -> None:
        if use.ending is not None:
            use.ending.cancel()
            use.ending = None
        running, use.running = use.running, None
        if running is not None:
            await running.stop(kill=kill)


def ports_of(service: ServiceState) -> tuple[Port, ...]:
    """The ports that a service listens on."""
    if service.container is not None:
        return service.container.image.ports
    return tuple(Port(front) for front, _, _ in service.forwards)


def _digest_of(container: ContainerState) -> str:
    """What tells containers apart, as text; file systems by the digests of their graphs."""

    def name(output: Output | None) -> str:
        return f"{output.vertex.digest}:{output.index}" if output else ""

    mounts = [
        [m.target, m.kind.value, name(m.output), m.path, m.read_only, m.sharing, m.owner,
         m.cache.key if m.cache else "", m.secret.identity if m.secret else "",
         m.socket.address if m.socket else ""]
        for m in container.mounts
    ]  # fmt: skip
    image = container.image
    parts = [
        name(container.rootfs), image.env, image.workdir, image.user, mounts,
        [(p.number, p.protocol, p.health_check) for p in image.ports], image.rest.get(health.KEY),
        [(variable, secret.identity) for variable, secret in container.secrets],
        [(b.alias, b.service.identity) for b in container.bindings],
    ]  # fmt: skip
    return json.dumps(parts)
