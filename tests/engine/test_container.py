"""A container's settings: what they are, how steps change them, how images bring theirs."""

from __future__ import annotations

import re
from collections.abc import Callable

import dagger
import pytest
from dagger import NetworkProtocol, Platform

from tests.engine.engines import failure, on, unique
from tests.engine.registry import image, serving

pytestmark = pytest.mark.anyio


async def variables(container: dagger.Container) -> list[tuple[str, str]]:
    return [(await v.name(), await v.value()) for v in await container.env_variables()]


async def labels(container: dagger.Container) -> list[tuple[str, str]]:
    return [(await v.name(), await v.value()) for v in await container.labels()]


async def ports(container: dagger.Container) -> list[tuple[int, NetworkProtocol, str | None]]:
    found = await container.exposed_ports()
    return [(await p.port(), await p.protocol(), await p.description()) for p in found]


@pytest.fixture
def empty(client: dagger.Client) -> dagger.Container:
    return client.container()


@pytest.fixture
def configured(client: dagger.Client, registry: str) -> dagger.Container:
    return client.container().from_(f"{registry}/configured:1")


# -- where they come from ---------------------------------------------------------------------


async def test_an_empty_container_has_nothing(empty: dagger.Container) -> None:
    assert await variables(empty) == await labels(empty) == await ports(empty) == []
    assert await empty.entrypoint() == await empty.default_args() == await empty.mounts() == []
    assert await empty.workdir() == await empty.user() == ""
    assert await empty.rootfs().entries() == []


async def test_an_image_brings_its_settings(configured: dagger.Container) -> None:
    assert await variables(configured) == [("PATH", "/bin:/usr/bin"), ("FROM_IMAGE", "yes")]
    assert await labels(configured) == [("a.label", "1")]
    assert await configured.entrypoint() == ["/bin/echo", "entry"]
    assert await configured.default_args() == ["default"]
    assert await configured.workdir() == "/tmp"
    assert await configured.user() == "user"
    assert await ports(configured) == [(8080, NetworkProtocol.TCP, None)]
    assert await configured.with_exec([], use_entrypoint=True).stdout() == "entry default\n"
    assert await configured.with_exec(["id", "-u"]).stdout() == "1000\n"


async def test_an_image_is_laid_over_what_was_set_before(
    client: dagger.Client, empty: dagger.Container, registry: str
) -> None:
    before = (
        empty.with_env_variable("BEFORE", "1")
        .with_env_variable("FROM_IMAGE", "no")
        .with_new_file("/before", "x")
        .with_label("l", "1")
        .with_label("a.label", "mine")
        .with_workdir("/w")
        .with_user("root")
        .with_entrypoint(["e"])
        .with_default_args(["d"])
        .with_mounted_directory("/m", client.directory())
        .with_exposed_port(99)
    )
    after = before.from_(f"{registry}/configured:1")
    assert await variables(after) == [
        ("BEFORE", "1"),
        ("FROM_IMAGE", "yes"),
        ("PATH", "/bin:/usr/bin"),
    ]
    assert sorted(await labels(after)) == [("a.label", "1"), ("l", "1")]
    assert await after.workdir() == "/tmp"
    assert await after.user() == "user"
    assert await after.entrypoint() == ["/bin/echo", "entry"]
    assert await after.default_args() == ["default"]
    assert await after.mounts() == ["/m"]
    assert sorted(number for number, _, _ in await ports(after)) == [99, 8080]
    assert "before" not in await after.rootfs().entries()


async def test_an_image_without_settings_takes_those_set_before_away(
    empty: dagger.Container, registry: str
) -> None:
    before = empty.with_workdir("/w").with_user("root").with_entrypoint(["e"])
    after = before.with_default_args(["d"]).from_(f"{registry}/plain:1")
    assert await after.workdir() == await after.user() == ""
    assert await after.entrypoint() == await after.default_args() == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("HERE/no/such:1", ["failed to resolve image", "HERE/no/such:1", "not found"]),
        ("HERE/plain:no", ["failed to resolve image", "HERE/plain:no", "not found"]),
        (f"HERE/plain@sha256:{'0' * 64}", ["failed to resolve image", "0" * 64, "not found"]),
        ("127.0.0.1:1/x:1", ["127.0.0.1:1/x:1", "connection refused"]),
        ("invalid!", ["invalid!", "invalid reference format"]),
        ("", ["invalid reference format"]),
        ("HERE/Plain:1", ["Plain", "must be lowercase"]),
    ],
)
async def test_images_that_cannot_be_had(
    empty: dagger.Container, registry: str, address: str, said: list[str]
) -> None:
    container = empty.from_(address.replace("HERE", registry))
    for question in (container.id(), container.env_variable("A")):
        message = str(await failure(question))
        for words in said:
            assert words.replace("HERE", registry) in message


async def test_the_reference_of_an_image(empty: dagger.Container, registry: str) -> None:
    reference = await empty.from_(f"{registry}/plain:1").image_ref()
    # Dagger may name the registry of an earlier run that had the same image.
    assert re.fullmatch(r"127\.0\.0\.1:\d+/plain:1@sha256:[0-9a-f]{64}", reference)
    again = empty.from_(reference)
    assert await again.image_ref() == reference


STEPS: dict[str, Callable[[dagger.Client, dagger.Container], dagger.Container]] = {
    "variable": lambda dag, c: c.with_env_variable("A", "1"),
    "label": lambda dag, c: c.with_label("a", "1"),
    "workdir": lambda dag, c: c.with_workdir("/w"),
    "file": lambda dag, c: c.with_new_file("/f", "1"),
    "directory": lambda dag, c: c.with_directory("/d", dag.directory()),
    "rootfs": lambda dag, c: c.with_rootfs(dag.directory()),
    "mounted directory": lambda dag, c: c.with_mounted_directory("/d", dag.directory()),
    "mounted cache": lambda dag, c: c.with_mounted_cache("/d", dag.cache_volume("reference")),
    "port": lambda dag, c: c.with_exposed_port(80),
    "exec": lambda dag, c: c.with_exec(["true"]),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_changed_container_has_no_reference(
    client: dagger.Client, empty: dagger.Container, registry: str, step: str
) -> None:
    changed = STEPS[step](client, empty.from_(f"{registry}/plain:1"))
    if step in on(dagger=("file", "directory", "mounted cache"), embedded=()):
        assert "plain:1@" in await changed.image_ref()  # of the image without the change
        return
    assert "Image reference can only be retrieved immediately after the 'Container.From' call" in (
        str(await failure(changed.image_ref()))
    )


@pytest.mark.parametrize(
    ("asked", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("windows/amd64", "windows/amd64"),
        ("nonsense/xx", "nonsense/xx"),
    ],
)
async def test_platforms(client: dagger.Client, asked: str, platform: str) -> None:
    assert await client.container(platform=Platform(asked)).platform() == platform


@pytest.mark.parametrize("asked", ["", "a/b/c/d"])
async def test_a_platform_that_is_none(client: dagger.Client, asked: str) -> None:
    message = str(await failure(client.container(platform=Platform(asked)).platform()))
    assert "platform" in message.lower()
    assert f'"{asked}"' in message


async def test_the_default_platform(client: dagger.Client, empty: dagger.Container) -> None:
    assert await empty.platform() == await client.default_platform()


async def test_an_image_of_one_platform_is_used_whatever_was_asked_for(
    client: dagger.Client, registry: str
) -> None:
    other = client.container(platform=Platform("linux/arm64")).from_(f"{registry}/plain:1")
    assert await other.platform() == "linux/amd64"
    assert await other.with_exec(["echo", "runs"]).stdout() == "runs\n"


async def test_a_registry_that_wants_a_login(client: dagger.Client, rootfs: object) -> None:
    name = unique("login-")
    one = image(b"\0" * 10240, {"Env": ["LOGGED=in"]})
    with serving({f"{name}:1": one}, login="me:pass-word") as address:
        reference = f"{address}/{name}:1"
        message = str(await failure(client.container().from_(reference).id()))
        assert "authorization failed" in message or "401" in message
        wrong = client.set_secret(f"{name}-wrong", "wrong")
        refused = client.container().with_registry_auth(address, "me", wrong)
        message = str(await failure(refused.from_(reference).id()))
        assert "401" in message or "authorization failed" in message
        right = client.set_secret(f"{name}-right", "pass-word")
        allowed = client.container().with_registry_auth(address, "me", right)
        assert await allowed.from_(reference).env_variable("LOGGED") == "in"


async def test_a_login_by_the_reference_of_an_image(client: dagger.Client) -> None:
    name = unique("login-")
    one = image(b"\0" * 10240, {"Env": ["LOGGED=in"]})
    with serving({f"{name}:1": one}, login="me:pass-word") as address:
        reference = f"{address}/{name}:1"
        secret = client.set_secret(f"{name}-password", "pass-word")
        allowed = client.container().with_registry_auth(reference, "me", secret)
        assert await allowed.from_(reference).env_variable("LOGGED") == "in"
        assert await allowed.without_registry_auth(reference).user() == ""


# -- variables, labels, annotations, ports ----------------------------------------------------


async def test_variables(empty: dagger.Container) -> None:
    one = empty.with_env_variable("A", "1").with_env_variable("B", "").with_env_variable("A", "3")
    assert await variables(one) == [("A", "3"), ("B", "")]  # in their old place
    assert await one.env_variable("B") == ""
    assert await one.env_variable("NOPE") is None
    without = one.without_env_variable("A").without_env_variable("NOPE")
    assert await variables(without) == [("B", "")]


async def test_variables_are_expanded_when_asked_for(empty: dagger.Container) -> None:
    one = empty.with_env_variable("PATH", "/bin").with_env_variable(
        "PATH", "/extra:$PATH", expand=True
    )
    assert await one.env_variable("PATH") == "/extra:/bin"
    two = one.with_env_variable("Y", "[${PATH}][$NOPE][$$PATH]", expand=True)
    assert await two.env_variable("Y") == "[/extra:/bin][][PATH]"
    assert await one.with_env_variable("N", "$PATH").env_variable("N") == "$PATH"
    for odd, value in {"${": "", "${a": "a", "$": "$", "${}": "", "a$": "a$", "$ b": "$ b"}.items():
        assert await one.with_env_variable("O", odd, expand=True).env_variable("O") == value, odd


async def test_a_hundred_variables(empty: dagger.Container) -> None:
    for number in range(100):
        empty = empty.with_env_variable(f"V{number}", str(number))
    assert await empty.env_variable("V99") == "99"


async def test_labels(empty: dagger.Container) -> None:
    one = empty.with_label("b", "1").with_label("a", "2").with_label("b", "3")
    assert await labels(one) == [("b", "3"), ("a", "2")]
    assert await one.label("b") == "3"
    assert await one.label("nope") is None
    assert await labels(one.without_label("b").without_label("nope")) == [("a", "2")]


async def test_annotations_are_no_part_of_commands(base: dagger.Container) -> None:
    one = base.with_annotation("a", "1").without_annotation("a").without_annotation("nope")
    assert await one.with_exec(["echo", "ok"]).stdout() == "ok\n"


async def test_ports(empty: dagger.Container) -> None:
    tcp, udp = NetworkProtocol.TCP, NetworkProtocol.UDP
    one = empty.with_exposed_port(80).with_exposed_port(53, protocol=udp, description="dns")
    one = one.with_exposed_port(80, description="web")
    assert await ports(one) == [(80, tcp, "web"), (53, udp, "dns")]
    assert await ports(one.without_exposed_port(80)) == [(53, udp, "dns")]
    assert len(await ports(one.without_exposed_port(53))) == 2  # that is 53/tcp
    skipping = empty.with_exposed_port(80, experimental_skip_healthcheck=True)
    [port] = await skipping.exposed_ports()
    assert await port.experimental_skip_healthcheck()


# -- working directory, user, command ---------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "workdir"),
    [
        (["/a", "b"], "/a/b"),
        (["rel"], "/rel"),
        (["/a/b", ".."], "/a"),
        (["/a", "../../.."], "/"),
        (["/a", ""], "/a"),
        (["/trail/"], "/trail/"),
        (["/a/", "b/"], "/a/b"),
        (["/a", "/z"], "/z"),
        ([""], "/"),
        (["/..", ""], "/"),
    ],
)
async def test_the_working_directory(
    empty: dagger.Container, steps: list[str], workdir: str
) -> None:
    for step in steps:
        empty = empty.with_workdir(step)
    assert await empty.workdir() == workdir


async def test_a_working_directory_from_a_variable(empty: dagger.Container) -> None:
    one = empty.with_env_variable("X", "xx")
    assert await one.with_workdir("/w/${X}", expand=True).workdir() == "/w/xx"


async def test_settings_can_be_taken_away(configured: dagger.Container) -> None:
    assert await configured.without_workdir().workdir() == ""
    assert await configured.without_user().user() == await configured.with_user("").user() == ""
    assert await configured.without_default_args().default_args() == []
    assert await configured.with_default_args([]).default_args() == []


async def test_another_entrypoint_takes_the_default_arguments_away(
    configured: dagger.Container,
) -> None:
    assert await configured.with_entrypoint(["x"]).default_args() == []
    kept = configured.with_entrypoint(["x"], keep_default_args=True)
    assert (await kept.entrypoint(), await kept.default_args()) == (["x"], ["default"])
    without = configured.without_entrypoint()
    assert (await without.entrypoint(), await without.default_args()) == ([], [])
    without = configured.without_entrypoint(keep_default_args=True)
    assert (await without.entrypoint(), await without.default_args()) == ([], ["default"])
    other = configured.with_default_args(["a", "b"])
    assert await other.entrypoint() == ["/bin/echo", "entry"]


async def test_another_root_file_system_keeps_the_settings(
    client: dagger.Client, configured: dagger.Container
) -> None:
    one = configured.with_rootfs(client.directory().with_new_file("only", "1"))
    assert await one.rootfs().entries() == ["only"]
    assert await one.workdir() == "/tmp"
    assert await one.entrypoint() == ["/bin/echo", "entry"]


# -- what Dagger accepts and nothing can be done with ----------------------------------------


async def test_names_that_no_variable_can_have(base: dagger.Container) -> None:
    await failure(base.with_env_variable("", "x").with_exec(["true"]).sync())
    ran = base.with_env_variable("A=B", "x").with_exec(["true"])
    accepted = True
    try:
        await ran.sync()
    except dagger.QueryError as error:
        assert "A=B" in str(error)
        accepted = False
    assert accepted is on(dagger=True, embedded=False)


async def test_a_port_that_is_none(empty: dagger.Container) -> None:
    question = empty.with_exposed_port(70000).exposed_ports()
    if on(dagger=True, embedded=False):
        assert await question
    else:
        assert "70000 is not a port" in str(await failure(question))


# -- steps of small weight --------------------------------------------------------------------


async def test_an_error_of_the_program_s_own(base: dagger.Container) -> None:
    assert "my message" in str(await failure(base.with_error("my message").sync()))
    assert await base.with_error("").with_exec(["echo", "on"]).stdout() == "on\n"


async def test_a_default_terminal_command_changes_nothing(base: dagger.Container) -> None:
    one = base.with_default_terminal_cmd(["sh"]).with_exec(["echo", "ok"])
    assert await one.stdout() == "ok\n"


async def test_a_volatile_variable_is_never_expanded(base: dagger.Container) -> None:
    one = base.with_volatile_variable("RUN", "123")
    for expanded in (
        one.with_exec(["echo", "$RUN"], expand=True),
        one.with_env_variable("COPY", "$RUN", expand=True),
    ):
        said = 'expand cannot be used with volatile env variable "RUN"'
        assert said in str(await failure(expanded.sync()))


async def test_the_first_process_is_an_init(base: dagger.Container) -> None:
    assert await base.with_exec(["cat", "/proc/1/comm"]).stdout() == ".init\n"


async def test_a_volatile_variable_is_seen_and_is_in_no_cache_key(base: dagger.Container) -> None:
    name = unique("V")

    async def ask(value: str) -> str:
        ran = base.with_volatile_variable(name, value)
        assert await ran.env_variable(name) is None
        script = f"echo ${name}; cat /proc/sys/kernel/random/uuid"
        return await ran.with_exec(["sh", "-c", script]).stdout()

    first = await ask("one")
    assert first.startswith("one\n")
    assert await ask("two") == first
    gone = base.with_volatile_variable(name, "1").without_volatile_variable(name)
    assert await gone.with_exec(["sh", "-c", f"echo [${name}]"]).stdout() == "[]\n"
