"""A client of OCI registries that believes nothing it did not check.

    async with Registry() as registry:
        digest = await registry.resolve("127.0.0.1:5080/dashboard", "latest")
        manifest = await registry.manifest("127.0.0.1:5080/dashboard", digest)
        data = await registry.blob("127.0.0.1:5080/dashboard", manifest.layers[0])

Whatever is fetched has the digest and the size that were asked for, or `Corrupt` is raised; sizes
are bounded. What is missing raises `Absent`, and only when the registry itself said so.

OCI distribution specification 1.1: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import quote, urlsplit

from buildonce.release.addresses import url_of
from buildonce.release.credentials import docker_login
from buildonce.release.descriptors import (
    DIGEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    Descriptor,
    Manifest,
    canonical,
    digest_of,
)
from buildonce.release.errors import (
    Absent,
    BrokenOff,
    Corrupt,
    RegistryError,
    RegistryRefused,
)
from buildonce.release.transport import Logins, Patience, Transport

_MANIFEST_BYTES = 4 << 20  # what the specification makes registries accept
BLOB_BYTES = 64 << 20  # a blob that is read into memory: evidence, never a layer
_LAYER_BYTES = 1 << 40
_TAGS = 100_000
_ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS | INDEXES))}


class Registry:
    """Any number of registries; use it as an asynchronous context manager.

    A repository is named as in `Image`: "host:port/name".

    Args:
        logins: who we are to a host; what `docker login` wrote by default.
        patience: how often and how long failures that may pass are waited for.
    """

    def __init__(self, *, logins: Logins = docker_login, patience: Patience | None = None) -> None:
        self._transport = Transport(logins=logins, patience=patience)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def resolve(self, repository: str, tag: str) -> str:
        """The digest that a tag names now.

        Raises:
            Absent: there is no such tag.
            RegistryError: it could not be found out.
        """
        return (await self.manifest(repository, tag)).digest

    async def manifest(self, repository: str, reference: str) -> Manifest:
        """A manifest by digest or tag.

        Raises:
            Absent: there is none.
            Corrupt: what came has another digest, or is no manifest.
            RegistryError: it could not be read.
        """
        host, name = _split(repository)
        what = f"{repository}{'@' if DIGEST.fullmatch(reference) else ':'}{reference}"
        answer = await self._transport.request(
            "GET",
            host,
            f"/v2/{name}/manifests/{quote(reference, safe=':')}",
            scope=_pull(name),
            headers=_ACCEPT,
            limit=_MANIFEST_BYTES,
            what=what,
        )
        if DIGEST.fullmatch(reference) and digest_of(answer.body) != reference:
            raise Corrupt(f"the registry {host} gave something else for {what}")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            # Some registries call every manifest JSON; then its own words count.
            return Manifest.parse(answer.body, "" if kind == "application/json" else kind)
        except ValueError as error:
            raise Corrupt(f"{what} cannot be understood: {error}") from None

    async def blob(self, repository: str, wanted: Descriptor, *, limit: int = BLOB_BYTES) -> bytes:
        """A blob, in memory.

        Raises:
            Absent, Corrupt, RegistryError: as for manifests; also when it is larger than `limit`.
        """
        if wanted.size > limit:
            raise RegistryError(
                f"{repository}@{wanted.digest} has {wanted.size} bytes; {limit} is the most"
            )
        attempts = 2  # a connection that broke off in the middle is worth another try
        while True:
            try:
                return b"".join([chunk async for chunk in self.stream(repository, wanted)])
            except BrokenOff:
                attempts -= 1
                if not attempts:
                    raise

    async def stream(self, repository: str, wanted: Descriptor) -> AsyncIterator[bytes]:
        """A blob's bytes as they come; the end is reached only when they were the right ones.

        Raises:
            Absent, Corrupt, RegistryError: as for manifests.
        """
        host, name = _split(repository)
        what = f"{repository}@{wanted.digest}"
        seen, size = hashlib.sha256(), 0
        async with self._transport.stream(
            "GET",
            host,
            f"/v2/{name}/blobs/{wanted.digest}",
            scope=_pull(name),
            limit=_LAYER_BYTES,
            what=what,
        ) as (_, chunks):
            async for chunk in chunks:
                size += len(chunk)
                if size > wanted.size:
                    raise Corrupt(f"{what} has more than the {wanted.size} bytes that it should")
                seen.update(chunk)
                yield chunk
        if size != wanted.size:
            raise Corrupt(f"{what} has {size} bytes and should have {wanted.size}")
        if f"sha256:{seen.hexdigest()}" != wanted.digest:
            raise Corrupt(f"the registry {host} gave something else for {what}")

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry says that it has a blob; for sparing an upload only."""
        host, name = _split(repository)
        try:
            await self._transport.request(
                "HEAD", host, f"/v2/{name}/blobs/{digest}", scope=_push(name), what=digest
            )
        except RegistryRefused as error:
            if error.status == 404:
                return False
            raise
        except Absent:
            return False
        return True

    async def tags(self, repository: str) -> list[str]:
        """All tags of a repository, sorted; none when the registry does not know it.

        Raises:
            RegistryError: they could not be read.
        """
        host, name = _split(repository)
        path, tags = f"/v2/{name}/tags/list?n=1000", set[str]()
        while path and len(tags) < _TAGS:
            try:
                answer = await self._transport.request(
                    "GET", host, path, scope=_pull(name), limit=_MANIFEST_BYTES, what=repository
                )
            except Absent:
                return sorted(tags)
            content = _object(answer.body, f"the tags of {repository}")
            found = content.get("tags") or []
            if not isinstance(found, list):
                raise Corrupt(f"the tags of {repository} are no list")
            known = len(tags)
            tags.update(str(tag) for tag in found)
            path = _next(answer.headers.get("Link", "")) if len(tags) > known else ""
        return sorted(tags)

    async def referrers(
        self, repository: str, digest: str, *, artifact_type: str = ""
    ) -> list[Descriptor]:
        """What says that it is about a manifest: by the referrers API, else by the fallback tag."""
        host, name = _split(repository)
        try:
            answer = await self._transport.request(
                "GET",
                host,
                f"/v2/{name}/referrers/{digest}",
                scope=_pull(name),
                limit=_MANIFEST_BYTES,
                what=f"what refers to {repository}@{digest}",
            )
            found = Manifest.parse(answer.body, OCI_INDEX).children
        except ValueError as error:
            raise Corrupt(f"the referrers of {repository}@{digest}: {error}") from None
        except (Absent, RegistryRefused) as error:
            if isinstance(error, RegistryRefused) and error.status not in (404, 405):
                raise
            try:
                found = (await self.manifest(repository, fallback_tag(digest))).children
            except Absent:
                found = ()
        return [item for item in found if not artifact_type or item.artifact_type == artifact_type]

    async def push_blob(self, repository: str, data: bytes, media_type: str) -> Descriptor:
        """Upload a blob unless it is there.

        Raises:
            RegistryError: it was not accepted.
        """
        blob = Descriptor.of(data, media_type)
        if not await self.has_blob(repository, blob.digest):
            host, name = _split(repository)
            where = await self._begin(host, name, "")
            await self._upload(host, name, where, blob, data)
        return blob

    async def push_manifest(
        self, repository: str, data: bytes, media_type: str, *, tag: str | None = None
    ) -> str:
        """Upload a manifest by its digest, or under a tag; the digest.

        One with a subject is also noted where that is looked for.

        Raises:
            RegistryError: it was not accepted.
        """
        host, name = _split(repository)
        digest = digest_of(data)
        answer = await self._transport.request(
            "PUT",
            host,
            f"/v2/{name}/manifests/{quote(tag or digest, safe=':')}",
            scope=_push(name),
            headers={"Content-Type": media_type},
            body=data,
            what=f"pushing {repository}@{digest}",
        )
        manifest = Manifest.parse(data, media_type)
        if manifest.subject and answer.headers.get("OCI-Subject") != manifest.subject.digest:
            await self._note_referrer(repository, manifest, manifest.subject)
        return digest

    async def tag(self, repository: str, digest: str, tag: str) -> None:
        """Let a tag name a manifest that is there."""
        manifest = await self.manifest(repository, digest)
        await self.push_manifest(repository, manifest.data, manifest.media_type, tag=tag)

    async def copy_blob(self, source: str, target: str, blob: Descriptor) -> bool:
        """Bring a blob from one repository to another; whether it had to be sent.

        Within one registry it is mounted; what is there already stays.

        Raises:
            RegistryError: it could not be read or was not accepted.
        """
        if await self.has_blob(target, blob.digest):
            return False
        (from_host, from_name), (host, name) = _split(source), _split(target)
        if from_host == host:
            query = f"?mount={quote(blob.digest, safe='')}&from={quote(from_name, safe='')}"
            where = await self._begin(host, name, query, also=_pull(from_name))
            if not where:
                return False
        else:
            where = await self._begin(host, name, "")
        await self._upload(host, name, where, blob, source)
        return True

    async def _begin(self, host: str, name: str, query: str, also: str = "") -> str:
        """Begin an upload: its address, "" when the blob was mounted instead."""
        answer = await self._transport.request(
            "POST",
            host,
            f"/v2/{name}/blobs/uploads/{query}",
            scope=f"{_push(name)} {also}".strip(),
            headers={"Content-Length": "0"},
            what=f"beginning an upload to {host}/{name}",
        )
        if answer.status == 201:
            return ""
        location = answer.headers.get("Location", "")
        if answer.status != 202 or not location:
            raise RegistryError(f"the registry {host} begins no upload: HTTP {answer.status}")
        return str(url_of(location, host, answer.url))

    async def _upload(
        self, host: str, name: str, where: str, blob: Descriptor, content: bytes | str
    ) -> None:
        """Send a blob: its bytes, or what another repository has of it."""
        body: Any = content
        if isinstance(content, str):

            def body() -> AsyncIterator[bytes]:
                return self.stream(content, blob)

        join = "&" if "?" in where else "?"
        await self._transport.request(
            "PUT",
            host,
            f"{where}{join}digest={quote(blob.digest, safe='')}",
            scope=_push(name),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)},
            body=body,
            what=f"pushing {blob.digest} to {host}/{name}",
        )

    async def _note_referrer(
        self, repository: str, manifest: Manifest, subject: Descriptor
    ) -> None:
        """Add a manifest to the index that stands in for the referrers API.

        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#unavailable-referrers-api
        """
        tag = fallback_tag(subject.digest)
        try:
            known = (await self.manifest(repository, tag)).children
        except Absent:
            known = ()
        if any(item.digest == manifest.digest for item in known):
            return
        new = manifest.descriptor.to_json() | {
            "artifactType": manifest.artifact_type,
            "annotations": manifest.annotations,
        }
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [*(item.to_json() for item in known), new],
        }
        await self.push_manifest(repository, canonical(index), OCI_INDEX, tag=tag)


def fallback_tag(digest: str) -> str:
    """The tag that lists what refers to a digest where the registry has no API for it."""
    return digest.replace(":", "-")


def _split(repository: str) -> tuple[str, str]:
    host, slash, name = repository.partition("/")
    if not (slash and host and name):
        raise ValueError(f"not an image repository: {repository!r}")
    return host, name


def _pull(name: str) -> str:
    return f"repository:{name}:pull"


def _push(name: str) -> str:
    return f"repository:{name}:pull,push"


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Corrupt(f"{what} cannot be understood: not a JSON object")
    return content


def _next(link: str) -> str:
    """The path of the next page out of a Link header; only ever on the same host."""
    target, _, rest = link.partition(">")
    if 'rel="next"' not in rest:
        return ""
    try:
        address = urlsplit(target.strip().removeprefix("<"))
    except ValueError:
        raise Corrupt(f"the next page of tags has no address: {link[:100]!r}") from None
    return f"{address.path}?{address.query}"
