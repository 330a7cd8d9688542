"""Commands: what runs, with which streams, and how failures are told."""

from __future__ import annotations

import dagger
import pytest

pytestmark = pytest.mark.anyio


async def test_stdout_and_stderr_are_apart(base: dagger.Container) -> None:
    ran = base.with_exec(["sh", "-c", "echo out; echo err >&2"])
    assert await ran.stdout() == "out\n"
    assert await ran.stderr() == "err\n"


async def test_a_new_exec_has_its_own_output(base: dagger.Container) -> None:
    ran = base.with_exec(["echo", "one"]).with_exec(["echo", "two"])
    assert await ran.stdout() == "two\n"


async def test_files_written_by_a_command_are_there_for_the_next(base: dagger.Container) -> None:
    ran = base.with_exec(["sh", "-c", "echo hello > /tmp/x"]).with_exec(["cat", "/tmp/x"])
    assert await ran.stdout() == "hello\n"


async def test_a_failing_command_is_an_exec_error(base: dagger.Container) -> None:
    with pytest.raises(dagger.ExecError) as caught:
        await base.with_exec(["sh", "-c", "echo partly; echo why >&2; exit 7"]).sync()
    assert caught.value.exit_code == 7
    assert caught.value.stdout.strip() == "partly"
    assert caught.value.stderr.strip() == "why"
    assert caught.value.command == ["sh", "-c", "echo partly; echo why >&2; exit 7"]
    assert "exit code: 7" in str(caught.value)


async def test_a_command_that_is_not_there(base: dagger.Container) -> None:
    with pytest.raises(dagger.QueryError) as caught:
        await base.with_exec(["spam", "ham"]).sync()
    assert "spam" in str(caught.value)


async def test_any_exit_code_can_be_accepted(base: dagger.Container) -> None:
    ran = base.with_exec(
        ["sh", "-c", "echo out; touch /made; exit 3"], expect=dagger.ReturnType.ANY
    )
    assert await ran.exit_code() == 3
    assert await ran.stdout() == "out\n"
    assert "made" in await ran.directory("/").entries()


async def test_failure_can_be_expected(base: dagger.Container) -> None:
    ran = base.with_exec(["false"], expect=dagger.ReturnType.FAILURE)
    assert await ran.exit_code() == 1
    with pytest.raises(dagger.QueryError):
        await base.with_exec(["true"], expect=dagger.ReturnType.FAILURE).sync()


async def test_failures_are_not_remembered(base: dagger.Container) -> None:
    for _ in range(2):
        with pytest.raises(dagger.ExecError):
            await base.with_exec(["sh", "-c", "exit 1"]).stdout()


async def test_stdin(base: dagger.Container) -> None:
    assert await base.with_exec(["cat"], stdin="from here").stdout() == "from here"


async def test_redirected_output_goes_to_files(base: dagger.Container) -> None:
    ran = base.with_exec(
        ["sh", "-c", "echo out; echo err >&2"], redirect_stdout="/o", redirect_stderr="/e"
    )
    assert await ran.file("/o").contents() == "out\n"
    assert await ran.file("/e").contents() == "err\n"


async def test_entrypoint_is_used_only_when_asked_for(base: dagger.Container) -> None:
    with_entrypoint = base.with_entrypoint(["echo", "entry"])
    assert await with_entrypoint.with_exec(["echo", "x"]).stdout() == "x\n"
    ran = with_entrypoint.with_exec(["x"], use_entrypoint=True)
    assert await ran.stdout() == "entry x\n"


async def test_arguments_are_expanded_only_when_asked_for(base: dagger.Container) -> None:
    named = base.with_env_variable("NAME", "value")
    assert await named.with_exec(["echo", "$NAME"]).stdout() == "$NAME\n"
    assert await named.with_exec(["echo", "${NAME}"], expand=True).stdout() == "value\n"


async def test_large_output_is_whole(base: dagger.Container) -> None:
    ran = base.with_exec(["sh", "-c", "seq 1 200000"])
    assert len((await ran.stdout()).splitlines()) == 200000


async def test_combined_output_holds_both(base: dagger.Container) -> None:
    ran = base.with_exec(["sh", "-c", "echo a; echo b >&2"])
    assert sorted((await ran.combined_output()).split()) == ["a", "b"]


async def test_as_another_user(base: dagger.Container) -> None:
    ran = base.with_user("user").with_exec(["id", "-u"])
    assert await ran.stdout() == "1000\n"
    ran = base.with_user("1234:5678").with_exec(["sh", "-c", "id -u; id -g"])
    assert await ran.stdout() == "1234\n5678\n"


async def test_the_working_directory_is_made(base: dagger.Container) -> None:
    ran = base.with_workdir("/not/there/yet").with_exec(["pwd"])
    assert await ran.stdout() == "/not/there/yet\n"


async def test_nothing_of_the_engine_is_left_in_the_image(base: dagger.Container) -> None:
    before = await base.directory("/").entries()
    after = await base.with_exec(["true"]).directory("/").entries()
    extra = set(after) - set(before)
    # The mount points that every container has.
    assert extra <= {"proc/", "sys/", "dev/"}


async def test_nothing_of_the_engine_is_in_the_environment(base: dagger.Container) -> None:
    environment = await base.with_exec(["env"]).stdout()
    assert "_BUILDONCE" not in environment
