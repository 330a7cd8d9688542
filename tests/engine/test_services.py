"""Services: long-running commands, how they are reached, how they start, fail and end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from pathlib import Path

import anyio
import dagger
import pytest
from dagger import NetworkProtocol

from tests.engine.engines import UUID, failure, fresh, get, on, sh, unique

pytestmark = pytest.mark.anyio


async def exec_error(question: Awaitable[object]) -> dagger.ExecError:
    """The error of a command that a question ends with."""
    error = await failure(question)
    assert isinstance(error, dagger.ExecError), error
    return error


# -- how they are reached ---------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["web", "Web", "my_service", "a.b.c"])
async def test_a_bound_command_reaches_a_service_by_its_alias(
    base: dagger.Container, web: dagger.Container, alias: str
) -> None:
    bound = base.with_service_binding(alias, web.as_service())
    assert await fresh(bound).with_exec(get(f"{alias}:8000")).stdout() == "served"
    hosts = await fresh(bound).with_exec(["cat", "/etc/hosts"]).stdout()
    assert re.search(rf"^[0-9.]+\t{re.escape(alias)}$", hosts, re.MULTILINE)


async def test_several_services_are_bound_at_once(
    base: dagger.Container, web: dagger.Container
) -> None:
    other = web.with_new_file("/srv/index.html", "other").as_service()
    bound = base.with_service_binding("one", web.as_service())
    bound = fresh(bound.with_service_binding("two", other))
    assert await bound.with_exec(get("one:8000")).stdout() == "served"
    assert await bound.with_exec(get("two:8000")).stdout() == "other"


async def test_the_first_service_of_an_alias_is_reached(
    base: dagger.Container, web: dagger.Container
) -> None:
    other = web.with_new_file("/srv/index.html", "other").as_service()
    bound = base.with_service_binding("web", web.as_service())
    bound = fresh(bound.with_service_binding("web", other))
    assert await bound.with_exec(get("web:8000")).stdout() == "served"


async def test_a_service_can_need_another(base: dagger.Container, web: dagger.Container) -> None:
    script = "; ".join(
        [get("back:8000")[2] + " > /srv/index.html", "exec httpd -f -p 8001 -h /srv"]
    )
    front = (
        fresh(base.with_new_file("/srv/x", ""))
        .with_service_binding("back", web.as_service())
        .with_exposed_port(8001)
        .as_service(args=sh(script))
    )
    bound = base.with_service_binding("front", front)
    assert await bound.with_exec(get("front:8001")).stdout() == "served"


async def test_names_and_addresses(web: dagger.Container) -> None:
    service = web.as_service()
    name = await service.hostname()
    assert re.fullmatch("[0-9a-z]{13}", name)
    assert await web.as_service().hostname() == name
    assert await service.endpoint() == f"{name}:8000"
    assert await service.endpoint(scheme="http") == f"http://{name}:8000"
    assert await service.endpoint(port=9, scheme="tcp") == f"tcp://{name}:9"
    [port] = await service.ports()
    assert (await port.port(), await port.protocol()) == (8000, NetworkProtocol.TCP)
    assert await port.description() is None


async def test_the_first_port_is_the_endpoint(base: dagger.Container) -> None:
    service = base.with_exposed_port(81).with_exposed_port(80).as_service(args=["sleep", "9"])
    assert (await service.endpoint()).endswith(":81")


async def test_a_service_without_ports_has_no_endpoint(base: dagger.Container) -> None:
    service = base.as_service(args=["sleep", "9"])
    assert "no ports exposed" in str(await failure(service.endpoint()))
    assert await service.endpoint(port=77) == f"{await service.hostname()}:77"
    assert await service.ports() == []


async def test_any_command_reaches_a_started_service_by_its_name(
    base: dagger.Container, web: dagger.Container
) -> None:
    service = await web.with_env_variable("S", unique()).as_service().start()
    ran = fresh(base).with_exec(get(await service.endpoint()))
    assert await ran.stdout() == "served"
    await service.stop()


async def test_a_service_with_a_name_of_its_own(
    base: dagger.Container, web: dagger.Container
) -> None:
    plain = await web.as_service().start()
    name = unique("named-")
    service = await web.as_service().with_hostname(name).start()
    assert await service.hostname() == name
    assert await service.endpoint() == f"{name}:8000"
    assert await fresh(base).with_exec(get(f"{name}:8000")).stdout() == "served"
    await service.stop()
    await plain.stop()


# -- what runs --------------------------------------------------------------------------------


async def test_the_command_of_a_service(base: dagger.Container) -> None:
    one = (
        base.with_entrypoint(sh("echo EP $0 $@ >&2; exit 7"))
        .with_default_args(sh("echo DEFAULT >&2; exit 8"))
        .with_exposed_port(8000)
    )
    after = one.with_exec(["echo", "x"])
    for service, code, said in (
        (one.as_service(), 8, "DEFAULT\n"),
        (one.as_service(use_entrypoint=True), 7, "EP sh -c echo DEFAULT >&2; exit 8\n"),
        (one.as_service(args=["a1"], use_entrypoint=True), 7, "EP a1\n"),
        (one.as_service(args=sh("echo ARGS >&2; exit 9")), 9, "ARGS\n"),
        (after.as_service(), 8, "DEFAULT\n"),  # not what ran last
    ):
        error = await exec_error(service.start())
        assert (error.exit_code, error.stderr) == (code, said)


async def test_an_image_is_started_as_it_is_meant_to_be(base: dagger.Container) -> None:
    image = base.with_entrypoint(sh("echo EP $0 $@ >&2; exit 7")).with_default_args(["made"])
    pulled = base.import_(image.as_tarball()).with_exposed_port(8000)
    for service, code, said in (
        (pulled.as_service(), 7, "EP made\n"),
        (pulled.as_service(args=sh("echo ARGS >&2; exit 9")), 9, "ARGS\n"),
        (pulled.with_default_args(sh("echo OWN >&2; exit 8")).as_service(), 8, "OWN\n"),
    ):
        error = await exec_error(service.start())
        assert (error.exit_code, error.stderr) == (code, said)


async def test_a_service_without_a_command(base: dagger.Container) -> None:
    for container in (base, base.with_exec(["sleep", "33"])):
        message = str(await failure(container.as_service().start()))
        assert "no service command has been set" in message


async def test_a_service_runs_as_its_container_says(base: dagger.Container) -> None:
    script = "echo $(id -u) $PWD $GREETING > /tmp/index.html; exec httpd -f -p 8000 -h /tmp"
    service = (
        base.with_user("user")
        .with_workdir("/tmp")
        .with_env_variable("GREETING", "hello")
        .with_exposed_port(8000)
        .as_service(args=sh(script))
    )
    bound = fresh(base.with_service_binding("web", service))
    assert await bound.with_exec(get("web:8000")).stdout() == "1000 /tmp hello\n"


async def test_what_a_service_writes_is_its_own(base: dagger.Container) -> None:
    one = base.with_exec(["mkdir", "/d"])
    service = await one.as_service(args=sh("echo x > /d/x; sleep 20")).start()
    await asyncio.sleep(0.5)
    assert await one.directory("/d").entries() == []
    await service.stop(kill=True)


async def test_a_service_shares_cache_volumes(
    client: dagger.Client, base: dagger.Container
) -> None:
    mounted = base.with_mounted_cache("/c", client.cache_volume(unique("service-")))
    service = await mounted.as_service(args=sh("echo from-it > /c/x; sleep 30")).start()
    assert await mounted.with_exec(sh("sleep 1; cat /c/x")).stdout() == "from-it\n"
    await service.stop(kill=True)


async def test_a_service_has_mounted_directories(
    client: dagger.Client, base: dagger.Container
) -> None:
    page = client.directory().with_new_file("index.html", "mounted")
    service = (
        base.with_mounted_directory("/srv", page)
        .with_exposed_port(8000)
        .as_service(args=["httpd", "-f", "-p", "8000", "-h", "/srv"])
    )
    bound = fresh(base.with_service_binding("web", service))
    assert await bound.with_exec(get("web:8000")).stdout() == "mounted"


# -- failures ---------------------------------------------------------------------------------


async def test_a_service_that_fails_at_once(base: dagger.Container) -> None:
    command = sh("echo out; echo oops >&2; exit 3")
    error = await exec_error(base.with_exposed_port(8000).as_service(args=command).start())
    assert str(error).startswith("exit code: 3")
    assert (error.exit_code, error.command) == (3, command)
    assert (error.stdout, error.stderr) == ("out\n", "oops\n")


async def test_a_service_that_ends_before_it_listens(base: dagger.Container) -> None:
    started = time.monotonic()
    service = base.with_exposed_port(8000).as_service(args=["sleep", "2"])
    assert "service exited before healthcheck" in str(await failure(service.start()))
    assert time.monotonic() - started > 1.5


async def test_a_command_bound_to_a_service_that_fails(base: dagger.Container) -> None:
    service = base.with_exposed_port(8000).as_service(args=sh("echo oops >&2; exit 3"))
    bound = fresh(base.with_service_binding("bad", service)).with_exec(["echo", "never"])
    error = await exec_error(bound.stdout())
    assert str(error).startswith(f"start {await service.hostname()} (aliased as bad): exit code: 3")
    assert (error.exit_code, error.stderr) == (3, "oops\n")


async def test_secrets_do_not_show_in_the_error_of_a_service(
    client: dagger.Client, base: dagger.Container
) -> None:
    variable, file = (
        client.set_secret("svc-v", "variable-value"),
        client.set_secret("svc-f", "file-value"),
    )
    service = (
        base.with_secret_variable("S", variable)
        .with_mounted_secret("/run/s", file)
        .with_exposed_port(8000)
        .as_service(args=sh("echo $S $(cat /run/s) >&2; exit 1"))
    )
    assert (await exec_error(service.start())).stderr == "*** ***\n"


async def test_the_output_of_a_service_is_told_when_who_needs_it_fails(
    base: dagger.Container, web: dagger.Container
) -> None:
    service = web.with_default_args(
        sh("echo the reason; exec httpd -f -p 8000 -h /srv")
    ).as_service()
    bound = fresh(base.with_service_binding("web", service)).with_exec(sh("echo mine >&2; exit 5"))
    error = await exec_error(bound.sync())
    assert (error.exit_code, error.stderr) == (5, "mine")
    assert ("the reason" in str(error)) is on(dagger=False, embedded=True)  # Dagger: its progress


async def test_a_command_ends_when_a_service_that_it_needs_does(base: dagger.Container) -> None:
    one = base.with_env_variable("ONE", unique())
    crashing = one.with_default_args(sh("sleep 2; echo crashed >&2; exit 42")).as_service()
    between = one.with_service_binding("dep", crashing).with_default_args(["sleep", "50"])
    for alias, service in (("db", crashing), ("app", between.as_service())):
        command = one.with_service_binding(alias, service).with_exec(["sleep", "40"])
        with anyio.fail_after(35):
            message = str(await failure(command.sync()))
        assert f"bound service {await service.hostname()} (aliased as {alias}) exited" in message
        assert "exit code: 42" in message


async def test_a_service_may_end_between_two_commands(base: dagger.Container) -> None:
    one = base.with_env_variable("ONE", unique())
    short = one.with_default_args(sh("sleep 1")).as_service()
    bound = one.with_service_binding("short", short).with_exec(["true"])
    later = base.with_directory("/of", bound.rootfs().directory("etc")).with_exec(["sleep", "3"])
    await later.sync()
    assert await bound.with_exec(["echo", "again"]).stdout() == "again\n"


async def test_a_service_without_ports_is_not_waited_for(base: dagger.Container) -> None:
    service = await base.as_service(args=["true"]).start()
    assert await service.hostname()
    with anyio.fail_after(60):
        service = await base.as_service(args=["sleep", "1000"]).start()
        skipping = base.with_exposed_port(8000, experimental_skip_healthcheck=True)
        skipped = await skipping.as_service(args=["sleep", "1000"]).start()
        await service.stop(kill=True)
        await skipped.stop(kill=True)


# -- life -------------------------------------------------------------------------------------


async def test_a_service_can_be_started_and_stopped_by_name(base: dagger.Container) -> None:
    service = base.as_service(args=["sleep", "40"])
    await service.stop()  # never started: no error
    assert isinstance(await service.start(), dagger.Service)
    assert isinstance(await service.start(), dagger.Service)
    assert isinstance(await service.stop(kill=True), dagger.Service)


async def test_equal_services_are_one_instance(
    base: dagger.Container, web: dagger.Container
) -> None:
    own = web.with_env_variable("S", unique())

    async def instance() -> str:
        bound = fresh(base.with_service_binding("web", own.as_service()))
        return await bound.with_exec(get("web:8000", "/id")).stdout()

    first, second = await asyncio.gather(instance(), instance())
    assert first == second == await instance()


async def test_a_service_that_was_stopped_starts_anew(
    base: dagger.Container, web: dagger.Container
) -> None:
    service = web.with_env_variable("S", unique()).as_service()
    seen = []
    for _ in range(2):
        await service.start()
        bound = fresh(base.with_service_binding("web", service))
        seen.append(await bound.with_exec(get("web:8000", "/id")).stdout())
        await service.stop()
    assert seen[0] != seen[1]


async def test_stopping(base: dagger.Container) -> None:
    def service(trap: str) -> dagger.Service:
        # It listens when the trap is set: a signal before that would be lost on process 1.
        script = f"trap {trap} TERM; httpd -p 8000; while true; do sleep 1; done"
        return base.with_exposed_port(8000).as_service(args=sh(script))

    deaf, polite = service("''"), service("'exit 0'")
    await asyncio.gather(deaf.start(), polite.start())
    with anyio.fail_after(60):
        await asyncio.gather(deaf.stop(kill=True), polite.stop())


async def test_a_cached_command_starts_no_service(
    base: dagger.Container, web: dagger.Container
) -> None:
    async def ask(text: str) -> str:
        service = web.with_new_file("/srv/index.html", text).as_service()
        bound = base.with_service_binding("web", service)
        return await bound.with_exec(sh(f"{get('web:8000')[2]}; {' '.join(UUID)}")).stdout()

    first, second = await ask("A"), await ask("B")
    assert (first[0], second[0]) == ("A", "B")
    assert await ask("A") == first
    broken = base.with_exposed_port(1).as_service(args=["false"])
    await failure(base.with_service_binding("x", broken).with_exec(["true"]).sync())


async def test_the_name_of_a_service_is_the_same_in_every_session(rootfs: Path) -> None:
    text, names = unique(), set()
    for _ in range(2):
        async with dagger.Connection() as client:
            root = client.host().directory(str(rootfs))
            start = client.container().with_rootfs(root).with_env_variable("PATH", "/bin")
            image = client.container().with_new_file("/text", text)
            one = start.with_mounted_file("/image.tar", image.as_tarball())
            names.add(await one.with_default_args(["sleep", "9"]).as_service().hostname())
    assert len(names) == 1
