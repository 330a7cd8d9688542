"""The `local` target: an environment on this machine, as containers behind a proxy of its own.

    target = LocalTarget(environment, project="dashboard", containers=RuntimeContainers(runtime))
    await deploy(release, environment, target=target, ...)

An environment is a container network, a HAProxy process that listens on the environment's port, and
one container (two during a rollout) that runs an image by digest and is published on a loopback
port that only the proxy uses. All of it outlives the process that made it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import httpx

from buildonce import places
from buildonce.config import EnvironmentConfig
from buildonce.delivery import configurations
from buildonce.delivery import state as states
from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.delivery.configurations import Given
from buildonce.delivery.containers import Containers, ContainerSpec
from buildonce.delivery.errors import ManifestLost, NotHealthy, TargetFailed, WrongDigest
from buildonce.delivery.haproxy import Proxy, ServerState
from buildonce.delivery.health import address, refusal, until_healthy, verify_digest
from buildonce.delivery.metrics import local_watches
from buildonce.delivery.state import Instance, State
from buildonce.delivery.target import Candidate, Counts, Deployed, Manifest, Step
from buildonce.delivery.watch import Watch
from buildonce.release import Release
from buildonce.trust import ssl_context

LEDGER_FOLDER = "/ledger"
# Outside the range that Linux hands out for outgoing connections, so that a port is still free when
# its container is started again.
_PORTS = range(20000, 30000)
_PREFIX = "buildonce"
_BACK_WITHIN = 120.0  # beside what the candidate may take to end its requests


class LocalTarget:
    """A `Target` on this machine.

    Args:
        environment: its configuration.
        project: name of the project; environments of different projects share nothing.
        containers: the container runtime.
        ledger: path of the ledger file; its folder is mounted where `mount_ledger` says so.
        home: where environments are kept; `places.home()` when None.
        haproxy: the proxy's executable; found when None.
        clock: by which metrics are judged.
    """

    def __init__(
        self,
        environment: EnvironmentConfig,
        *,
        project: str,
        containers: Containers,
        ledger: Path | None = None,
        home: Path | None = None,
        haproxy: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.environment = environment
        self.project = project
        self.containers = containers
        self.folder = environment_folder(project, environment.name, home=home)
        # Other homes (another user's, a test's) may have environments of the same names in the
        # same runtime: nothing of theirs may be taken for ours.
        home_name = hashlib.sha256(str(self.folder.absolute()).encode()).hexdigest()[:6]
        self.network = f"{_PREFIX}-{project}-{environment.name}-{home_name}"
        self.proxy = Proxy(
            self.folder,
            name=f"{project}/{environment.name}",
            port=environment.local_port,
            health_path=environment.health_path,
            binary=haproxy,
        )
        self.fence = 0
        self.native = False
        self._ledger = ledger
        self._clock = clock
        self._labels = {
            f"{_PREFIX}.project": project,
            f"{_PREFIX}.environment": environment.name,
            f"{_PREFIX}.folder": str(self.folder.absolute()),
        }

    @property
    def back_within(self) -> float:
        return _BACK_WITHIN + self.environment.rollout.drain.total_seconds()

    async def url(self) -> str:
        return self.environment.url

    def fingerprint(self, release: Release, manifest: Manifest | None = None) -> str:
        try:
            given = self._given(manifest)
        except ManifestLost:
            return "unknown"
        content = json.dumps(
            [release.image.reference, self._env(release, given), self._mounts(given)],
            sort_keys=True,
        )
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"

    async def current(self) -> Deployed | None:
        instance = (await self._read()).current
        if instance is None:
            return None
        detail = await self._complaint(instance)
        return Deployed(
            version=instance.release.version,
            revision=instance.release.revision,
            digest=instance.release.image.digest,
            started=instance.started,
            url=self.environment.url,
            fingerprint=instance.fingerprint,
            rollout=instance.rollout,
            healthy=not detail,
            detail=detail,
            manifest=instance.manifest,
        )

    async def pending(self) -> Candidate | None:
        state = await self._read()
        if state.candidate is None:
            return None
        instance = state.slots[state.candidate]
        return _candidate(state.candidate, instance, state.percent)

    async def repair(self, say: Callable[[str], None]) -> None:
        state = await self._read()
        await self._remove_strays(state)
        if state.leftover is not None:
            await self._retire(state, state.leftover)
        if state.active is None:
            return
        await self._must_run(state.active, say)
        state = await self._read()
        if await self.proxy.ensure(state.traffic()):
            say(f"{self.environment.name}: its proxy was not running; started it")
            await self.proxy.up(state.active or "", within=2)

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        async def figures() -> ServerState | None:
            return (await self.proxy.states()).get(candidate.id)

        return local_watches(figures, self.environment.rollout.metrics, self._clock)

    async def counts(self, candidate: Candidate) -> Counts | None:
        served = {slot: state.served for slot, state in (await self.proxy.states()).items()}
        if candidate.id not in served:
            return None
        new = served.pop(candidate.id)
        return Counts(new, sum(served.values()), await self.proxy.failed())

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        given = self._given(manifest)
        kept = await anyio.to_thread.run_sync(configurations.keep, self.folder, given)
        async with step("pull", reference=release.image.reference):
            await self.containers.pull(release.image)
        state = await self._read()
        slot = state.free
        instance = self._plan(release, given, slot=slot, rollout=rollout, manifest=kept)
        # Before it exists: a crash between here and its start must not leave an unknown container.
        await self._write(state.with_candidate(slot, instance))
        async with step("start", container=instance.container) as data:
            await self.containers.network(self.network)
            instance = await self._start(instance)
            data["port"] = instance.port
            await self._write((await self._read()).with_candidate(slot, instance))
        path = self.environment.health_path
        async with step("healthy", path=path):
            await self._wait_healthy(instance)
            await verify_digest(self.containers, instance, path=path)
            await self.proxy.ensure((await self._read()).traffic())
            if not await self.proxy.up(slot, within=10):
                raise NotHealthy(
                    f"{instance.container} is healthy, but not for the proxy of "
                    f"{self.environment.name}",
                    remedy=f"curl -i {address(instance, path)}",
                )
        return _candidate(slot, instance, 0)

    async def shift(self, candidate: Candidate, percent: int) -> None:
        state = replace(await self._read(), percent=percent)
        await self._write(state)
        await self.proxy.apply(state.traffic())

    async def finish(self, candidate: Candidate) -> None:
        state = await self._read()
        if state.candidate == candidate.id:
            # From here on it is the current one, whatever happens to the previous.
            state = state.finished()
            await self._write(state)
        if state.leftover is not None:
            await self._retire(state, state.leftover)
        else:
            await self.proxy.ensure(state.traffic())

    async def restore(self, candidate: Candidate, why: str) -> None:
        state = await self._read()
        if state.candidate != candidate.id:
            return
        if state.active is None:
            # Nothing ran here before: nothing shall run now, not even a proxy that has nobody.
            await self.proxy.stop()
            await self.containers.remove(state.slots[candidate.id].container)
            await self.containers.remove_network(self.network)
            await self._write(state.without(candidate.id))
            return
        if state.percent:
            # It may have died while it was the one that is kept.
            await self._must_run(state.active, lambda _: None)
            state = replace(await self._read(), percent=0)
            await self._write(state)
        await self._retire(state, candidate.id)

    async def down(self) -> None:
        await self.proxy.stop()
        await self._remove_strays(State())
        await self.containers.remove_network(self.network)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    async def _retire(self, state: State, slot: str) -> None:
        """Empty a slot that is to get no traffic any more, once its last requests have ended."""
        if not await self.proxy.ensure(state.traffic()):
            await self.proxy.drained(slot, within=self.environment.rollout.drain.total_seconds())
        await self.proxy.apply(state.traffic(hide=slot))
        await self.proxy.drained(slot, within=1)
        await self.containers.remove(state.slots[slot].container)
        await self._write(state.without(slot))

    async def _must_run(self, slot: str, say: Callable[[str], None]) -> None:
        instance = (await self._read()).slots[slot]
        found = await self.containers.inspect(instance.container)
        if found is None or not found.running:
            say(f"{self.environment.name}: {instance.release.version} is not running; starting it")
            await self._revive(slot, instance, exists=found is not None)

    async def _start(self, instance: Instance) -> Instance:
        for attempt in range(3):
            spec = ContainerSpec(
                name=instance.container,
                image=instance.release.image,
                network=self.network,
                port=instance.port,
                env=instance.env,
                labels={
                    **self._labels,
                    f"{_PREFIX}.rollout": instance.rollout,
                    f"{_PREFIX}.digest": instance.release.image.digest,
                },
                mounts=instance.mounts,
            )
            try:
                await self.containers.start(spec)
                return instance
            except TargetFailed as error:
                await self.containers.remove(instance.container)
                if attempt == 2 or "address already in use" not in error.message.lower():
                    raise
                # Somebody took the port between our look and the start.
                instance = replace(instance, port=_free_port())
        raise AssertionError("unreachable")

    async def _revive(self, slot: str, instance: Instance, *, exists: bool) -> None:
        """Start what has died; what cannot be started must not stop a new release from coming."""
        with suppress(TargetFailed, NotHealthy, WrongDigest):
            await self.containers.network(self.network)
            if exists:
                with suppress(TargetFailed, NotHealthy):
                    await self.containers.resume(instance.container)
                    await self._wait_healthy(instance)
                    return
                await self.containers.remove(instance.container)
            await self.containers.pull(instance.release.image)
            revived = await self._start(instance)
            state = await self._read()
            await self._write(replace(state, slots={**state.slots, slot: revived}))
            await self._wait_healthy(revived)

    def _plan(
        self, release: Release, given: Given, *, slot: str, rollout: str, manifest: Manifest
    ) -> Instance:
        return Instance(
            container=f"{self.network}-{slot}-{rollout.rpartition('-')[2]}",
            rollout=rollout,
            port=_free_port(),
            release=release,
            fingerprint=self.fingerprint(release, manifest),
            env=self._env(release, given),
            mounts=self._mounts(given),
            started=datetime.now(UTC),
            manifest=manifest,
        )

    def _given(self, manifest: Manifest | None) -> Given:
        """The configuration that goes with a manifest; the present one without."""
        if manifest is None:
            return Given(self.environment.configuration, self.environment.mount_ledger)
        return configurations.read(self.folder, manifest)

    def _env(self, release: Release, given: Given) -> dict[str, str]:
        env = {
            **given.variables,
            "BUILDONCE_ENVIRONMENT": self.environment.name,
            "BUILDONCE_VERSION": release.version,
            "BUILDONCE_REVISION": release.revision,
            "BUILDONCE_DIGEST": release.image.digest,
        }
        if given.mount_ledger and self._ledger is not None:
            env["BUILDONCE_LEDGER"] = f"{LEDGER_FOLDER}/{self._ledger.name}"
        return env

    def _mounts(self, given: Given) -> dict[str, str]:
        if not given.mount_ledger or self._ledger is None:
            return {}
        return {str(self._ledger.absolute().parent): LEDGER_FOLDER}

    async def _complaint(self, instance: Instance) -> str:
        """Why the environment does not answer with this instance; empty when it does."""
        url = f"{self.environment.url}{self.environment.health_path}"
        async with httpx.AsyncClient(trust_env=False, verify=ssl_context(), timeout=5) as client:
            complaint = await refusal(client, url, digest=instance.release.image.digest)
        if not complaint:
            return ""
        if not await self.proxy.running():
            return "its proxy is not running"
        state = await self.containers.inspect(instance.container)
        if state is None:
            return "its container is gone"
        if not state.running:
            return f"its container has ended with exit code {state.exit_code}"
        return f"GET {url}: {complaint}"

    async def _wait_healthy(self, instance: Instance) -> None:
        place = self.environment
        patience = place.health_timeout.total_seconds()
        await until_healthy(self.containers, instance, path=place.health_path, patience=patience)

    async def _remove_strays(self, state: State) -> None:
        known = {instance.container for instance in state.slots.values()}
        for name in await self.containers.find(self._labels):
            if name not in known:
                await self.containers.remove(name)

    async def _read(self) -> State:
        return await anyio.to_thread.run_sync(states.read, self.folder)

    async def _write(self, state: State) -> None:
        await anyio.to_thread.run_sync(lambda: states.write(self.folder, state, fence=self.fence))


def _candidate(slot: str, instance: Instance, percent: int) -> Candidate:
    return Candidate(
        slot,
        instance.rollout,
        instance.release,
        percent,
        url=address(instance),
        manifest=instance.manifest,
    )


def environment_folder(project: str, environment: str, *, home: Path | None = None) -> Path:
    """Where an environment's lock, state and proxy configuration are."""
    return (home or places.home()) / project / "environments" / environment


def _free_port() -> int:
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise TargetFailed(
        f"no loopback port is free between {_PORTS.start} and {_PORTS.stop - 1}",
        remedy="ss -ltn shows who has them",
    )
