from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.release.addresses import schemes
from buildonce.release.credentials import Login, docker_login
from buildonce.release.descriptors import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
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
    RegistryUnreachable,
)
from buildonce.release.models import Image
from buildonce.release.registry import Registry, fallback_tag
from buildonce.release.transport import Patience
from tests.loopback import free_port
from tests.loopback import registry as serving
from tests.release.conftest import HURRIED, push_image, push_index
from tests.release.hostile import (
    Fault,
    Handler,
    changed,
    faulty,
    first_times,
    half,
    html,
    nothing,
    status,
)

pytestmark = pytest.mark.anyio

UNKNOWN = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}).encode()


async def test_what_is_pushed_is_found_by_digest_and_by_tag(
    registry: Registry, repository: str
) -> None:
    image = await push_image(registry, repository, tag="v1")
    assert await registry.resolve(repository, "v1") == image.digest
    manifest = await registry.manifest(repository, image.digest)
    assert manifest.config is not None
    data = await registry.blob(repository, manifest.config)
    assert json.loads(data)["architecture"] == "amd64"
    await registry.tag(repository, image.digest, "v2")
    assert await registry.tags(repository) == ["v1", "v2"]


async def test_what_is_not_there_is_absent(registry: Registry, repository: str) -> None:
    await push_image(registry, repository)
    for missing in ("nothing", digest_of(b"nothing")):
        with pytest.raises(Absent):
            await registry.manifest(repository, missing)
    with pytest.raises(Absent):
        await registry.blob(repository, Descriptor.of(b"nothing", OCI_CONFIG))
    assert await registry.tags(f"{repository}-nobody-knows") == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (html(404), RegistryRefused),
        (status(404), RegistryRefused),
        (status(404, b'{"errors": [{"code": "UNSUPPORTED"}]}'), RegistryRefused),
        (status(404, UNKNOWN), Absent),
        (status(500, UNKNOWN), RegistryRefused),
        (html(200), Corrupt),
        (status(403), RegistryRefused),
        (half, BrokenOff),
        (nothing, RegistryUnreachable),
        (status(200, b"{" * 100_000), Corrupt),
        (status(200, b" " * (5 << 20)), RegistryError),
        (status(302, Location="http://127.0.0.1:1/"), RegistryUnreachable),
        (status(302, Location="?again"), RegistryError),
        (status(302, Location="http://x:port/"), RegistryError),
        (status(302, Location="file:///etc/passwd"), RegistryError),
        (status(302), RegistryError),
    ],
)
async def test_only_the_registrys_own_word_makes_something_absent(
    host: str, repository: str, registry: Registry, fault: object, error: type[RegistryError]
) -> None:
    image = await push_image(registry, repository, tag="v1")
    with faulty(host, {"/manifests/": fault}) as address:  # type: ignore[dict-item]
        there = f"{address}/{repository.partition('/')[2]}"
        for reference in ("v1", image.digest):
            with pytest.raises(RegistryError) as raised:
                await registry.manifest(there, reference)
            assert isinstance(raised.value, Absent) == (error is Absent)
            assert isinstance(raised.value, error)


async def test_nobody_listening_is_no_answer(registry: Registry) -> None:
    with pytest.raises(RegistryUnreachable, match=r"cannot be reached.*") as raised:
        await registry.tags(f"127.0.0.1:{free_port()}/app")
    assert raised.value.remedy == "buildonce registry up"


async def test_failures_that_pass_are_waited_for(host: str, repository: str) -> None:
    patient = Patience(attempts=4, pause=0.01, longest=0.2)
    async with Registry(patience=patient) as registry:
        await push_image(registry, repository, tag="v1")
        faults = {
            "/manifests/v1": first_times(3, status(429, Retry_After="3600")),
            "/tags/list": first_times(2, status(503)),
            "/blobs/": first_times(1, half),
        }
        with faulty(host, faults) as address:
            there = f"{address}/{repository.partition('/')[2]}"
            manifest = await registry.manifest(there, "v1")
            assert await registry.tags(there) == ["v1"]
            assert manifest.config is not None
            assert len(await registry.blob(there, manifest.config)) == manifest.config.size


async def test_other_bytes_than_those_asked_for_are_refused(
    host: str, repository: str, registry: Registry
) -> None:
    image = await push_image(registry, repository, content="good")
    config = (await registry.manifest(repository, image.digest)).config
    assert config is not None
    for faults in ({"/blobs/": changed(b"good", b"evil")}, {"/blobs/": changed(b"good", b"bad")}):
        with faulty(host, faults) as address:
            there = f"{address}/{repository.partition('/')[2]}"
            with pytest.raises(Corrupt):
                await registry.blob(there, config)
    with faulty(host, {"/manifests/": changed(b"linux", b"other")}) as address:
        there = f"{address}/{repository.partition('/')[2]}"
        await registry.manifest(there, image.digest)  # "linux" is not in it: unchanged
    with faulty(host, {"/manifests/": changed(b'"layers":[]', b'"layers": []')}) as address:
        there = f"{address}/{repository.partition('/')[2]}"
        with pytest.raises(Corrupt, match="something else"):
            await registry.manifest(there, image.digest)
    with pytest.raises(Corrupt, match="bytes"):
        await registry.blob(repository, replace(config, size=config.size + 1))
    with pytest.raises(RegistryError, match="is the most"):
        await registry.blob(repository, config, limit=3)


@given(st.binary(max_size=2000), st.binary(min_size=1, max_size=64), st.integers(0, 2000))
def test_a_digest_is_of_exactly_these_bytes(data: bytes, more: bytes, at: int) -> None:
    blob = Descriptor.of(data, OCI_CONFIG)
    assert blob.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    other = data[:at] + more + data[at:]
    assert Descriptor.of(other, OCI_CONFIG).digest != blob.digest


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_no_manifest_breaks_the_reader(content: object) -> None:
    for data in (content, {"schemaVersion": 2, "layers": content, "config": content}):
        with pytest.raises(ValueError):
            Manifest.parse(json.dumps(data).encode(), OCI_MANIFEST)


def test_an_image_that_is_an_index_too_is_refused() -> None:
    config = Descriptor.of(b"{}", OCI_CONFIG).to_json()
    both = {"schemaVersion": 2, "config": config, "layers": [], "manifests": []}
    for kind in (OCI_MANIFEST, OCI_INDEX):
        with pytest.raises(ValueError, match="at once"):
            Manifest.parse(canonical(both), kind)
    own = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    with pytest.raises(ValueError, match="was sent as"):
        Manifest.parse(canonical(own), OCI_MANIFEST)


async def test_what_refers_to_an_image_is_listed_without_the_registrys_help(
    registry: Registry, repository: str
) -> None:
    image = await push_image(registry, repository)
    subject = (await registry.manifest(repository, image.digest)).descriptor
    config = await registry.push_blob(repository, b"{}", OCI_CONFIG)
    pushed = []
    for kind in ("application/x-one", "application/x-two"):
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": config.to_json(),
            "layers": [],
            "subject": subject.to_json(),
        }
        for _ in range(2):  # again is no second entry
            pushed.append(
                await registry.push_manifest(repository, canonical(manifest), OCI_MANIFEST)
            )
    found = await registry.referrers(repository, image.digest)
    assert [item.digest for item in found] == [pushed[0], pushed[2]]
    found = await registry.referrers(repository, image.digest, artifact_type="application/x-two")
    assert [item.digest for item in found] == [pushed[2]]
    assert fallback_tag(image.digest) in await registry.tags(repository)


async def test_blobs_are_copied_mounted_or_left(
    registry: Registry, repository: str, tmp_path: Path
) -> None:
    data = b"layer" * 1_000_000
    blob = await registry.push_blob(repository, data, "application/octet-stream")
    assert not await registry.copy_blob(repository, f"{repository}-beside", blob)  # mounted
    with serving(tmp_path) as other:
        assert await registry.copy_blob(repository, f"{other}/app", blob)
        assert not await registry.copy_blob(repository, f"{other}/app", blob)
        assert await registry.blob(f"{other}/app", blob) == data


async def test_a_page_of_tags_leads_to_the_next(registry: Registry, repository: str) -> None:
    for number in range(7):
        await push_image(registry, repository, tag=f"v{number}")
    pages = {
        "n=1000&last=v2": status(200, b'{"tags": ["v3"]}', Content_Type="application/json"),
        "/tags/list?n=1000": status(
            200,
            b'{"tags": ["v2"]}',
            Link=f'</v2/{repository.partition("/")[2]}/tags/list?n=1000&last=v2>; rel="next"',
        ),
    }
    with faulty("", pages) as address:
        there = f"{address}/{repository.partition('/')[2]}"
        assert await registry.tags(there) == ["v2", "v3"]
    assert await registry.tags(repository) == [f"v{number}" for number in range(7)]


async def test_a_next_page_that_is_nowhere_is_refused() -> None:
    page = status(200, b'{"tags": ["v1"]}', Link='<http://[half>; rel="next"')
    with faulty("", {"/tags/list": page, "GET /v2/": status(200)}) as address:
        async with Registry(patience=HURRIED) as registry:
            with pytest.raises(Corrupt, match="has no address"):
                await registry.tags(f"{address}/app")


async def test_a_bearer_token_is_fetched_once_and_sent_nowhere_else(host: str) -> None:
    seen: list[tuple[str, str, dict[str, str]]] = []
    elsewhere: list[tuple[str, str, dict[str, str]]] = []
    logins = {"user": "ada", "password": "secret"}

    async def login(_host: str) -> Login | None:
        return Login(**logins)

    with faulty("", {"": status(200, b"{}")}, elsewhere) as other:
        faults = {}
        with faulty("", faults, seen) as address:  # type: ignore[arg-type]

            def tags(handler: object) -> None:
                headers = dict(handler.headers.items())  # type: ignore[attr-defined]
                if headers.get("Authorization") == "Bearer the-token":
                    status(307, Location=f"http://{other}/elsewhere")(handler)  # type: ignore[arg-type]
                else:
                    realm = f'Bearer realm="http://{address}/token",service="test"'
                    status(401, WWW_Authenticate=realm)(handler)  # type: ignore[arg-type]

            faults["/token"] = status(200, b'{"token": "the-token"}')
            faults["/v2/app/tags"] = tags
            faults["/v2/ "] = status(200)
            faults["GET /v2/"] = status(200)
            async with Registry(logins=login, patience=HURRIED) as registry:
                for _ in range(2):
                    assert await registry.tags(f"{address}/app") == []
    asked = [(path, headers) for _, path, headers in seen if path.startswith("/token")]
    assert len(asked) == 1
    path, headers = asked[0]
    assert "scope=repository%3Aapp%3Apull" in path
    assert "service=test" in path
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"ada:secret").decode()
    assert len(elsewhere) == 2
    assert all("Authorization" not in headers for _, _, headers in elsewhere)


@pytest.mark.parametrize(
    ("challenge", "message"),
    [
        ('Bearer realm="http://tokens.example/"', "without TLS to tokens.example"),
        ('Bearer realm="https://tokens.example:port/"', "leads to what is no address"),
        ('Bearer realm="file:///etc/passwd"', "leads to what is no address"),
        ('Bearer realm="/token"', "leads to what is no address"),
        ('Bearer realm=""', "leads to what is no address"),
        ("Bearer", "wants a login"),
        ("Negotiate", "wants a login"),
        ("", "wants a login"),
    ],
)
async def test_no_challenge_leads_our_password_astray(challenge: str, message: str) -> None:
    async def login(_host: str) -> Login | None:
        return Login("ada", "secret")

    seen: list[tuple[str, str, dict[str, str]]] = []
    with faulty("", {"GET /v2/": status(401, WWW_Authenticate=challenge)}, seen) as address:
        async with Registry(logins=login, patience=HURRIED) as registry:
            with pytest.raises(RegistryError, match=re.escape(message)):
                await registry.tags(f"{address}/app")
    assert all("Authorization" not in headers for _, _, headers in seen)


async def test_a_token_server_without_an_end_is_not_read_to_it() -> None:
    faults: dict[str, Fault] = {"/token": status(200, b'{"token": "' + b"x" * (3 << 20) + b'"}')}
    with faulty("", faults) as address:
        realm = f'Bearer realm="http://{address}/token"'
        faults["GET /v2/"] = status(401, WWW_Authenticate=realm)
        async with Registry(logins=nobody, patience=HURRIED) as registry:
            with pytest.raises(RegistryError, match="more than the 1048576 bytes awaited"):
                await registry.tags(f"{address}/app")


async def nobody(_host: str) -> Login | None:
    return None


async def test_a_registry_that_says_nothing_is_not_waited_for_without_an_end() -> None:
    still = threading.Event()

    def silent(_: Handler) -> None:
        still.wait(5)

    patience = Patience(attempts=2, pause=0.01, silence=0.2)
    try:
        with faulty("", {"/manifests/": silent, "GET /v2/": status(200)}) as address:
            async with Registry(logins=nobody, patience=patience) as registry:
                with pytest.raises(RegistryUnreachable, match="does not answer in time"):
                    await registry.manifest(f"{address}/app", "v1")
                still.set()
    finally:
        still.set()


async def test_a_login_that_is_not_accepted_is_told(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(f"user:$2b$05${'a' * 53}\n")  # nobody's password
    with serving(tmp_path / "data", htpasswd=tmp_path / "htpasswd") as address:
        async with Registry(patience=HURRIED) as registry:
            with pytest.raises(RegistryRefused) as raised:
                await registry.tags(f"{address}/app")
    assert raised.value.status == 401
    assert raised.value.remedy == f"docker login {address}"


async def test_logins_are_those_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host\n[ "$host" = helped.test ] || exit 1\n'
        'echo \'{"Username": "<token>", "Secret": "identity"}\'\n'
    )
    helper.chmod(0o755)
    config = {
        "auths": {
            "https://plain.test/v1/": {"auth": base64.b64encode(b"ada:pass:word").decode()},
            "damaged.test": {"auth": "§"},
        },
        "credHelpers": {"helped.test": "test", "gone.test": "nobody-has-this"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert await docker_login("plain.test") == Login("ada", "pass:word")
    assert await docker_login("helped.test") == Login("", "", "identity")
    assert await docker_login("unknown.test") is None
    with pytest.raises(RegistryError, match="damaged"):
        await docker_login("damaged.test")
    with pytest.raises(RegistryError, match="not installed"):
        await docker_login("gone.test")
    assert "pass:word" not in repr(await docker_login("plain.test"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:5000", ("http", "https")),
        ("127.0.0.1:5000", ("http", "https")),
        ("registry.localhost", ("https", "http")),
        ("[::1]:5000", ("http", "https")),
        ("10.1.2.3:5000", ("https", "http")),
        ("registry.local", ("https", "http")),
        ("registry.example.com", ("https",)),
        ("127.0.0.1.example.com", ("https",)),
        ("8.8.8.8:5000", ("https",)),
    ],
)
def test_only_near_registries_may_be_plain(address: str, expected: tuple[str, ...]) -> None:
    assert schemes(address) == expected


async def test_an_index_names_its_platforms(registry: Registry, repository: str) -> None:
    index = await push_index(registry, repository)
    manifest = await registry.manifest(repository, index.digest)
    assert [child.platform for child in manifest.children] == ["linux/amd64", "linux/arm64"]
    assert Image(repository, index.digest) == index
