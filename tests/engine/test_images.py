"""Images: built from a Dockerfile, pushed, written to archives, and read back."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import dagger
import httpx
import pytest
from dagger import BuildArg, ImageLayerCompression, ImageMediaTypes, NetworkProtocol, Platform

from tests.engine.engines import failure, on, sh, unique
from tests.loopback import registry as real_registry

pytestmark = pytest.mark.anyio

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`127.0.0.1:PORT` of a registry that can be pushed to."""
    with real_registry(tmp_path_factory.mktemp("store")) as address:
        yield address


@pytest.fixture(scope="module")
async def start(base: dagger.Container, store: str) -> str:
    """The reference of an image with a shell, for Dockerfiles to start from."""
    return await base.publish(f"{store}/start:1")


def fetch(reference: str, what: str) -> Any:
    """A document of a registry: `manifests/<tag or digest>` or `blobs/<digest>`."""
    address, _, name = reference.partition("@")[0].partition("/")
    kinds = ("manifest.v1+json", "index.v1+json")
    accept = [f"{OCI}.{kind}" for kind in kinds]
    accept += [f"{DOCKER}.distribution.manifest{kind}" for kind in (".v2+json", ".list.v2+json")]
    answer = httpx.get(
        f"http://{address}/v2/{name.rpartition(':')[0] or name}/{what}",
        headers={"Accept": ", ".join(accept)},
        trust_env=False,
    )
    answer.raise_for_status()
    return answer.json()


def manifest(reference: str) -> Any:
    return fetch(reference, f"manifests/{reference.partition('@')[2]}")


def config(reference: str) -> Any:
    return fetch(reference, f"blobs/{manifest(reference)['config']['digest']}")


# -- pushed -------------------------------------------------------------------------------------


async def test_publish_answers_the_address_with_the_digest(
    base: dagger.Container, store: str
) -> None:
    image = base.with_label("p", "1")
    address, _, digest = (await image.publish(f"{store}/one:tag")).partition("@")
    assert address == f"{store}/one:tag"
    assert digest.startswith("sha256:")
    assert await image.publish(f"{store}/one:tag") == f"{address}@{digest}"
    assert await image.publish(f"{store}/one") == f"{store}/one@{digest}"


async def test_a_digest_in_the_address_is_no_place(base: dagger.Container, store: str) -> None:
    answer = await base.publish(f"{store}/two@sha256:{'0' * 64}")
    assert answer.startswith(f"{store}/two@sha256:")
    assert "0" * 64 not in answer


async def test_what_is_pushed(base: dagger.Container, store: str) -> None:
    image = (
        base.with_label("p", "2")
        .with_annotation("an.no", "t")
        .with_env_variable("E", "1")
        .with_exposed_port(8080)
        .with_exposed_port(53, protocol=NetworkProtocol.UDP)
        .with_new_file("/f", "x")
        .with_exec(["touch", "/g"])
        .with_entrypoint(["e"])
        .with_default_args(["d"])
        .with_workdir("/w")
        .with_user("user")
    )
    reference = await image.publish(f"{store}/three:1")
    found = manifest(reference)
    assert found["mediaType"] == f"{OCI}.manifest.v1+json"
    assert found["annotations"] == {"an.no": "t"}
    assert {layer["mediaType"] for layer in found["layers"]} == {f"{OCI}.layer.v1.tar+gzip"}
    assert len(found["layers"]) == 3
    settings = config(reference)
    assert (settings["architecture"], settings["os"]) == ("amd64", "linux")
    assert settings["config"] == {
        "User": "user",
        "ExposedPorts": {"53/udp": {}, "8080/tcp": {}},
        "Env": ["PATH=/bin", "E=1"],
        "Entrypoint": ["e"],
        "Cmd": ["d"],
        "WorkingDir": "/w",
        "Labels": {"p": "2"},
    }


async def test_a_pushed_image_can_be_started_from(
    base: dagger.Container, client: dagger.Client, store: str
) -> None:
    text = unique()
    reference = await base.with_new_file("/pub", text).publish(f"{store}/four:1")
    again = client.container().from_(reference)
    assert await again.file("/pub").contents() == text
    assert await again.with_exec(["cat", "/pub"]).stdout() == text


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (
            {"media_types": ImageMediaTypes.DockerMediaTypes},
            (f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.image.rootfs.diff.tar.gzip"),
        ),
        (
            {"forced_compression": ImageLayerCompression.Zstd},
            (f"{OCI}.manifest.v1+json", f"{OCI}.layer.v1.tar+zstd"),
        ),
        (
            {"forced_compression": ImageLayerCompression.Uncompressed},
            (f"{OCI}.manifest.v1+json", f"{OCI}.layer.v1.tar"),
        ),
    ],
)
async def test_media_types_and_compression(
    base: dagger.Container, store: str, options: dict[str, Any], kinds: tuple[str, str]
) -> None:
    image = base.with_new_file("/k", str(options))
    found = manifest(await image.publish(f"{store}/five:1", **options))
    assert (found["mediaType"], {layer["mediaType"] for layer in found["layers"]}) == (
        kinds[0],
        {kinds[1]},
    )


async def test_several_platforms(client: dagger.Client, store: str) -> None:
    variants = [
        client.container(platform=Platform(name)).with_rootfs(
            client.directory().with_new_file("f", name)
        )
        for name in ("linux/amd64", "linux/arm64")
    ]
    reference = await client.container().publish(f"{store}/six:1", platform_variants=variants)
    found = manifest(reference)
    assert found["mediaType"] == f"{OCI}.index.v1+json"
    platforms = [entry["platform"] for entry in found["manifests"]]
    assert platforms == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    # The image itself and a variant of it make two as well.
    reference = await variants[0].publish(f"{store}/six:2", platform_variants=variants[1:])
    assert len(manifest(reference)["manifests"]) == 2


async def test_nothing_to_push(client: dagger.Client, store: str, tmp_path: Path) -> None:
    empty = client.container()
    for question in (empty.publish(f"{store}/seven:1"), empty.export(str(tmp_path / "x.tar"))):
        assert "no containers to export" in str(await failure(question))


async def test_an_address_that_is_none(base: dagger.Container) -> None:
    assert "invalid reference format" in str(await failure(base.publish("Not Valid!")))


async def test_a_registry_that_wants_another_login(
    base: dagger.Container, client: dagger.Client, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(f"user:$2b$05${'a' * 53}\n")  # nobody's password
    with real_registry(tmp_path / "data", htpasswd=tmp_path / "htpasswd") as address:
        error = str(await failure(base.publish(f"{address}/x:1")))
        assert "authorization failed" in error or "401" in error
        secret = client.set_secret(unique("password"), "wrong")
        wrong = base.with_registry_auth(address, "user", secret)
        error = str(await failure(wrong.publish(f"{address}/x:1")))
        assert "401" in error
        assert "wrong" not in error


# -- archives -----------------------------------------------------------------------------------


def documents(archive: tarfile.TarFile) -> tuple[Any, Any]:
    """The index of an archive, and the manifest that it names first."""

    def read(name: str) -> Any:
        stream = archive.extractfile(name)
        assert stream is not None
        return json.loads(stream.read())

    index = read("index.json")
    return index, read("blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:"))


async def test_export(base: dagger.Container, tmp_path: Path) -> None:
    target = tmp_path / "image.tar"
    assert await base.with_label("x", "1").export(str(target)) == str(target)
    with tarfile.open(target) as archive:
        _, found = documents(archive)
        assert found["mediaType"] == f"{OCI}.manifest.v1+json"
        names = archive.getnames()
        assert "oci-layout" in names
        # What `docker load` reads.
        assert "manifest.json" in names


async def test_export_of_several_platforms(client: dagger.Client, tmp_path: Path) -> None:
    variants = [
        client.container(platform=Platform(name)).with_rootfs(
            client.directory().with_new_file("f", name)
        )
        for name in ("linux/amd64", "linux/arm64")
    ]
    target = tmp_path / "image.tar"
    await client.container().export(str(target), platform_variants=variants)
    with tarfile.open(target) as archive:
        index, found = documents(archive)
        entries = found.get("manifests", index["manifests"])
        assert sorted(e["platform"]["architecture"] for e in entries) == ["amd64", "arm64"]


async def test_tarball_and_back(
    base: dagger.Container, client: dagger.Client, tmp_path: Path
) -> None:
    text = unique()
    image = base.with_env_variable("IMP", text).with_entrypoint(["x"]).with_new_file("/f", text)
    tarball = image.as_tarball()
    assert await tarball.name() == "container.tar"
    assert await tarball.size() > 1000
    again = client.container().import_(tarball)
    assert await again.env_variable("IMP") == text
    assert await again.entrypoint() == ["x"]
    assert await again.with_exec(["cat", "/f"]).stdout() == text
    exported = tmp_path / "image.tar"
    await image.export(str(exported), media_types=ImageMediaTypes.DockerMediaTypes)
    again = client.container().import_(client.host().file(str(exported)))
    assert await again.file("/f").contents() == text


async def test_what_is_no_archive(client: dagger.Client) -> None:
    file = client.directory().with_new_file("f", "this is no archive").file("f")
    error = str(await failure(client.container().import_(file).sync()))
    assert "archive" in error


async def test_a_hostile_archive(client: dagger.Client, tmp_path: Path) -> None:
    target = tmp_path / "evil.tar"
    with tarfile.open(target, "w") as archive:
        for name in ("../../escaped", "index.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    file = client.host().file(str(target))
    await failure(client.container().import_(file).sync())
    assert not (tmp_path.parent / "escaped").exists()


# -- Dockerfiles --------------------------------------------------------------------------------


@pytest.fixture
def context(client: dagger.Client) -> dagger.Directory:
    return client.directory()


def dockerfile(context: dagger.Directory, text: str) -> dagger.Directory:
    return context.with_new_file("Dockerfile", text)


async def test_build(context: dagger.Directory, start: str) -> None:
    text = f'FROM {start}\nARG A=1\nENV E=$A\nRUN echo built-$A > /o\nCMD ["cat","/o"]\n'
    built = dockerfile(context, text).docker_build(build_args=[BuildArg("A", "7")])
    assert await built.with_exec([]).stdout() == "built-7\n"
    assert await built.env_variable("E") == "7"
    assert await dockerfile(context, text).docker_build().with_exec([]).stdout() == "built-1\n"


async def test_settings_of_what_is_built(context: dagger.Directory, start: str) -> None:
    text = (
        f"FROM {start}\nENV A=1\nWORKDIR /w\nUSER user\nLABEL l=v\nEXPOSE 80 53/udp\n"
        'ENTRYPOINT ["e"]\nCMD ["c"]\n'
    )
    built = dockerfile(context, text).docker_build()
    assert [await v.name() for v in await built.env_variables()] == ["PATH", "A"]
    assert await built.workdir() == "/w"
    assert await built.user() == "user"
    assert await built.label("l") == "v"
    ports = sorted([(await p.port(), await p.protocol()) for p in await built.exposed_ports()])
    assert ports == [(53, NetworkProtocol.UDP), (80, NetworkProtocol.TCP)]
    assert await built.entrypoint() == ["e"]
    assert await built.default_args() == ["c"]


async def test_target_another_file_and_a_secret(
    client: dagger.Client, context: dagger.Directory, start: str
) -> None:
    secret = client.set_secret("bs", "build-secret-value")
    made = context.with_new_file(
        "sub/My.Dockerfile",
        f"FROM {start} AS one\nRUN echo one > /o\nFROM one AS two\n"
        "RUN --mount=type=secret,id=bs wc -c < /run/secrets/bs > /o\n"
        "FROM two AS three\nRUN echo three > /o\n",
    )

    async def output(**options: Any) -> str:
        built = made.docker_build(dockerfile="sub/My.Dockerfile", **options)
        return (await built.file("/o").contents()).strip()

    assert await output(target="one") == "one"
    assert await output(target="two", secrets=[secret]) == "18"
    assert await output(secrets=[secret]) == "three"


async def test_a_file_of_the_context(context: dagger.Directory, start: str) -> None:
    made = dockerfile(context, f"FROM {start}\nCOPY --chown=7:8 sub /src\n")
    built = made.with_new_file("sub/x", "x").docker_build()
    assert await built.with_exec(["stat", "-c", "%u:%g", "/src/x"]).stdout() == "7:8\n"


async def test_dockerignore(context: dagger.Directory, start: str) -> None:
    made = (
        dockerfile(context, f"FROM {start}\nCOPY . /src\n")
        .with_new_file(".dockerignore", "# comment\n*.log\n/deep/x\n!keep.log\n")
        .with_new_file("a.log", "1")
        .with_new_file("keep.log", "1")
        .with_new_file("deep/x", "1")
        .with_new_file("deep/y", "1")
    )
    found = await made.docker_build().directory("/src").glob("**")
    assert found == [".dockerignore", "Dockerfile", "deep/", "deep/y", "keep.log"]


async def test_a_failing_run(context: dagger.Directory, start: str) -> None:
    made = dockerfile(context, f"FROM {start}\nRUN echo partly; echo oops >&2; exit 5\n")
    with pytest.raises(dagger.ExecError) as caught:
        await made.docker_build().sync()
    assert caught.value.exit_code == 5
    assert caught.value.command == ["/bin/sh", "-c", "echo partly; echo oops >&2; exit 5"]
    assert caught.value.stdout.strip() == "partly"
    assert caught.value.stderr.strip() == "oops"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("FRM x\n", ["line 1", "unknown instruction", "FRM"]),
        ("ARG IMG\nFROM $IMG\n", ["base name ($IMG) should not be blank"]),
        ("FROM STORE/no/such:1\n", ["STORE/no/such:1", "not found"]),
        ("FROM START\nCOPY nope /x\n", ["nope"]),
    ],
)
async def test_what_is_wrong_in_it(
    context: dagger.Directory, start: str, store: str, text: str, facts: list[str]
) -> None:
    made = dockerfile(context, text.replace("START", start).replace("STORE", store))
    error = str(await failure(made.docker_build().sync()))
    for fact in facts:
        assert fact.replace("STORE", store) in error


async def test_no_dockerfile(context: dagger.Directory) -> None:
    error = str(await failure(context.with_new_file("x", "1").docker_build().id()))
    assert "Dockerfile" in error
    assert "no such file or directory" in error


async def test_an_unknown_target(context: dagger.Directory, start: str) -> None:
    made = dockerfile(context, f"FROM {start} AS one\n")
    error = str(await failure(made.docker_build(target="zz").id()))
    assert 'target stage "zz" could not be found' in error


async def test_a_build_that_is_not_needed_is_not_run(context: dagger.Directory, start: str) -> None:
    made = dockerfile(context, f"FROM {start}\nRUN exit 1\n").docker_build()
    if on(dagger=True, embedded=False):
        await failure(made.id())
    else:
        assert await made.id()


async def test_a_later_step_of_what_is_built(context: dagger.Directory, start: str) -> None:
    built = dockerfile(context, f"FROM {start}\nRUN echo one > /o\n").docker_build()
    assert await built.with_exec(sh("cat /o; echo two")).stdout() == "one\ntwo\n"


async def test_variables_in_the_name_of_an_archive(base: dagger.Container, tmp_path: Path) -> None:
    image = base.with_env_variable("NAME", "mine")
    assert await image.export(f"{tmp_path}/$NAME.tar", expand=True) == f"{tmp_path}/mine.tar"
    assert (tmp_path / "mine.tar").stat().st_mode & 0o777 == 0o600


async def test_an_image_has_one_archive(base: dagger.Container, tmp_path: Path) -> None:
    text = unique()
    for number in range(2):
        async with dagger.Connection() as other:
            image = other.container().with_new_file("/text", text)
            await image.as_tarball().export(f"{tmp_path}/{number}.tar")
        await anyio.sleep(1.1)  # it names the second it is written in
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
