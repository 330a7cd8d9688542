"""Where commands run: variables, user, working directory, network names, what they leave."""

from __future__ import annotations

import dagger
import pytest

from tests.engine.engines import ENGINE, failure, on, sh, unique

pytestmark = pytest.mark.anyio

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What an engine adds on purpose: Dagger its telemetry, the embedded engine the host's settings.
ADDED = on(
    dagger=("OTEL_", "BAGGAGE", "TRACEPARENT"),
    embedded=(
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "UV_", "NPM_CONFIG_", "GOPROXY",
        "GONOSUMDB", "GOSUMDB", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
        "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    ),
)  # fmt: skip


async def environment(container: dagger.Container) -> dict[str, str]:
    """The variables of the container's commands, without what the engine adds on purpose."""
    lines = (await container.with_exec(["/bin/env"]).stdout()).splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if not name.startswith(ADDED)}


async def test_nothing_of_the_engine_is_in_the_environment(base: dagger.Container) -> None:
    assert await environment(base) == {"PATH": "/bin", "HOME": "/root"}


async def test_variables_of_tracing_are_the_program_s_own(base: dagger.Container) -> None:
    own = base.with_env_variable("OTEL_TRACES_EXPORTER", "none").with_env_variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318"
    )
    lines = (await own.with_exec(["env"]).stdout()).splitlines()
    assert "OTEL_TRACES_EXPORTER=none" in lines
    endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://collector:4318"
    assert (endpoint in lines) is on(dagger=False, embedded=True)


async def test_a_trace_parent_of_the_program_s_own(base: dagger.Container) -> None:
    ran = base.with_env_variable("TRACEPARENT", "mine").with_exec(sh("echo $TRACEPARENT"))
    assert (await ran.stdout() == "mine\n") is on(dagger=False, embedded=True)


async def test_variables_come_in_order(client: dagger.Client, base: dagger.Container) -> None:
    secret = client.set_secret("environment-order", "value-of-it")
    ran = base.with_env_variable("Z", "1").with_secret_variable("S", secret)
    names = list(await environment(ran.with_env_variable("A", "2")))
    assert [name for name in names if name != "HOME"] == ["PATH", "Z", "A", "S"]


async def test_strange_values_of_variables(base: dagger.Container) -> None:
    value = "q\"'\\ é ✓ $X\nnew line"
    ran = base.with_env_variable("V", value)
    assert await ran.env_variable("V") == value
    assert await ran.with_exec(sh('printf %s "$V"')).stdout() == value


async def test_there_is_always_a_path(client: dagger.Client, rootfs: object) -> None:
    bare = client.container().with_rootfs(client.host().directory(str(rootfs)))
    assert await environment(bare) == {"PATH": DEFAULT_PATH, "HOME": "/root"}
    without = bare.with_env_variable("PATH", "/bin").without_env_variable("PATH")
    assert (await environment(without))["PATH"] == DEFAULT_PATH


@pytest.mark.parametrize(
    ("user", "ids", "home"),
    [
        ("user", "1000 1001", "/home/user"),
        ("1000", "1000 1001", "/home/user"),
        ("1000:1001", "1000 1001", "/home/user"),
        ("user:root", "1000 0", "/home/user"),
        ("user:1002", "1000 1002", "/home/user"),
        ("4242", "4242 0", "/"),
        ("4242:4343", "4242 4343", "/"),
        ("", "0 0", "/root"),
    ],
)
async def test_users(base: dagger.Container, user: str, ids: str, home: str) -> None:
    ran = base.with_user(user).with_exec(sh("echo $(id -u) $(id -g) $HOME"))
    assert await ran.stdout() == f"{ids} {home}\n"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("root:nosuch", "unable to find group nosuch: no matching entries in group file"),
    ],
)
async def test_unknown_users(base: dagger.Container, user: str, said: str) -> None:
    container = base.with_user(user)
    await container.id()  # nothing is wrong until a command runs
    assert said in str(await failure(container.with_exec(["true"]).sync()))


async def test_home_can_be_given(base: dagger.Container) -> None:
    ran = base.with_env_variable("HOME", "/mine").with_exec(sh("echo $HOME"))
    assert await ran.stdout() == "/mine\n"


async def test_a_missing_working_directory_is_made(base: dagger.Container) -> None:
    script = sh("pwd; stat -c '%a %u:%g' /made /made/here")
    inside = base.with_workdir("/made/here")
    assert await inside.with_exec(script).stdout() == "/made/here\n755 0:0\n755 0:0\n"
    as_user = inside.with_user("user").with_exec(script)
    assert await as_user.stdout() == "/made/here\n755 1000:1001\n755 1000:1001\n"


async def test_a_working_directory_that_is_a_file(base: dagger.Container) -> None:
    error = await failure(base.with_workdir("/etc/passwd").with_exec(["pwd"]).sync())
    told = str(error) + getattr(error, "stderr", "")
    assert "/etc/passwd" in told
    assert "not a directory" in told


async def test_host_name_and_hosts(base: dagger.Container) -> None:
    fresh = base.with_env_variable("FRESH", unique())  # what is in hosts is in no cache key
    hosts = await fresh.with_exec(["head", "-2", "/etc/hosts"]).stdout()
    assert hosts == "127.0.0.1\tlocalhost dagger\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    name = await fresh.with_exec(["hostname"]).stdout()
    assert name == on(dagger="dagger\n", embedded="buildkitsandbox\n")
    # Whatever it is, programs that look themselves up find loopback.
    assert await fresh.with_exec(sh("grep -w $(hostname) /etc/hosts")).stdout()


async def test_the_image_s_own_hosts_are_hidden_and_kept(base: dagger.Container) -> None:
    own = base.with_new_file("/etc/hosts", "1.2.3.4 mine\n")
    assert "mine" not in await own.with_exec(["cat", "/etc/hosts"]).stdout()
    assert await own.with_exec(["true"]).file("/etc/hosts").contents() == "1.2.3.4 mine\n"


async def test_there_is_no_terminal(base: dagger.Container) -> None:
    ran = base.with_exec(sh("test -t 0 || test -t 1 || test -t 2 || echo none; umask"))
    assert await ran.stdout() == "none\n0022\n"


async def test_temporary_places_can_be_written(base: dagger.Container) -> None:
    script = "touch /tmp/x /dev/shm/x && echo yes; touch /sys/x 2>/dev/null || echo no"
    assert await base.with_exec(sh(script)).stdout() == "yes\nno\n"


async def test_nothing_of_the_engine_is_left_in_the_image(
    client: dagger.Client, base: dagger.Container
) -> None:
    before = await base.rootfs().glob("**")
    after = await base.with_exec(["true"]).rootfs().glob("**")
    assert {*after} - {*before} <= {"proc/", "sys/", "dev/"}  # what every container has
    secret = client.set_secret("left-in-the-image", "value")
    mounted = (
        base.with_mounted_secret("/run/secret", secret)
        .with_mounted_temp("/temporary")
        .with_mounted_cache("/cache/here", client.cache_volume("left-in-the-image"))
        .with_mounted_directory("/m", client.directory().with_new_file("f", "x"))
        .with_exec(["true"])
    )
    assert await mounted.rootfs().glob("**") == after


async def test_files_written_by_a_command_are_there_for_the_next(base: dagger.Container) -> None:
    ran = base.with_exec(sh("echo hello > /tmp/x"))
    assert await ran.with_exec(["cat", "/tmp/x"]).stdout() == "hello\n"
    assert await ran.file("/tmp/x").contents() == "hello\n"


async def test_capabilities(base: dagger.Container) -> None:
    async def effective(**how: bool) -> int:
        ran = base.with_exec(["grep", "CapEff", "/proc/self/status"], **how)
        return int((await ran.stdout()).split()[1], 16)

    usual = await effective()
    assert usual == 0xA80425FB
    assert await effective(insecure_root_capabilities=True) & ~usual


async def test_what_only_dagger_has_is_refused_by_name(base: dagger.Container) -> None:
    ran = base.with_exec(["true"], experimental_privileged_nesting=True)
    if ENGINE == "embedded":
        assert "experimentalPrivilegedNesting" in str(await failure(ran.sync()))
    else:
        await ran.sync()
