"""Whether a container is well, and what was asked for; and its last words where it is not.

await until_healthy(containers, instance, path="/healthz", patience=60)
await verify_digest(containers, instance, path="/healthz")
"""

from __future__ import annotations

import anyio
import httpx

from buildonce.delivery.containers import Containers
from buildonce.delivery.errors import NotHealthy, WrongDigest
from buildonce.delivery.smoke import answered_digest
from buildonce.delivery.state import Instance
from buildonce.trust import ssl_context

_LOOK_AGAIN = 0.1  # seconds


def address(instance: Instance, path: str = "") -> str:
    """Where this container alone answers."""
    return f"http://127.0.0.1:{instance.port}{path}"


async def until_healthy(
    containers: Containers, instance: Instance, *, path: str, patience: float
) -> None:
    """Wait until a GET of the path succeeds.

    Raises:
        NotHealthy: it did not within `patience` seconds, or the container has ended by itself.
    """
    url = address(instance, path)
    last = "it did not answer"
    with anyio.move_on_after(patience):
        async with httpx.AsyncClient(trust_env=False, verify=ssl_context(), timeout=5) as client:
            while True:
                last = await refusal(client, url)
                if not last:
                    return
                await _must_live(containers, instance)
                await anyio.sleep(_LOOK_AGAIN)
    words = await _last_words(containers, instance)
    raise NotHealthy(
        f"{instance.release.version} was not healthy within {patience:g} s: GET {path}: "
        f"{last}{words}",
        remedy="read the container's last lines above; `health_timeout` in pipeline.toml is "
        "how long it may take",
    )


async def verify_digest(containers: Containers, instance: Instance, *, path: str) -> None:
    """What runs is the digest that was asked for: by the runtime, and by its own word.

    Raises:
        WrongDigest: it is not.
    """
    wanted = instance.release.image.digest
    state = await containers.inspect(instance.container)
    held = await containers.digests(state) if state is not None else frozenset()
    if wanted not in held:
        raise WrongDigest(
            f"the container {instance.container} does not run {wanted}, but "
            f"{', '.join(sorted(held)) or 'an image without a digest'}",
            remedy="buildonce doctor",
        )
    async with httpx.AsyncClient(trust_env=False, verify=ssl_context(), timeout=5) as client:
        said = answered_digest(await client.get(address(instance, path)))
    if said is not None and said != wanted:
        raise WrongDigest(f"the service says that it is {said}, not {wanted}")


async def refusal(client: httpx.AsyncClient, url: str, *, digest: str | None = None) -> str:
    """Why a GET of `url` is not a success (of that digest, if it says one); empty when it is."""
    try:
        response = await client.get(url)
    except httpx.TransportError as error:
        return str(error) or type(error).__name__
    if response.status_code >= 400:
        return f"it answered {response.status_code}"
    said = answered_digest(response)
    if digest is not None and said is not None and said != digest:
        return f"it was answered by digest {said}"
    return ""


async def _must_live(containers: Containers, instance: Instance) -> None:
    state = await containers.inspect(instance.container)
    if state is None or not state.running or state.restarts > 0:
        code = "" if state is None else f" with exit code {state.exit_code}"
        words = await _last_words(containers, instance)
        raise NotHealthy(
            f"{instance.release.version} ended by itself{code} while starting{words}",
            remedy="read the container's last lines above",
        )


async def _last_words(containers: Containers, instance: Instance) -> str:
    text = await containers.logs(instance.container)
    if not text:
        return "; the container wrote nothing"
    indented = "\n".join(f"    {line}" for line in text.splitlines())
    return f"; the container's last lines:\n{indented}"
