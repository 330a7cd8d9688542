"""Commands: what runs, with which streams, and how failures are told."""

from __future__ import annotations

import asyncio

import dagger
import pytest
from dagger import ReturnType

from tests.engine.engines import UUID, failure, on, sh, unique

pytestmark = pytest.mark.anyio


async def exec_error(container: dagger.Container) -> dagger.ExecError:
    """The error that running the container's command ends with."""
    error = await failure(container.sync())
    assert isinstance(error, dagger.ExecError), error
    return error


# -- output -----------------------------------------------------------------------------------


async def test_stdout_and_stderr_are_apart(base: dagger.Container) -> None:
    ran = base.with_exec(sh("echo out; echo err >&2"))
    assert await ran.stdout() == "out\n"
    assert await ran.stderr() == "err\n"
    assert await ran.exit_code() == 0


async def test_combined_output_holds_both(base: dagger.Container) -> None:
    ran = base.with_exec(sh("echo a; echo b >&2"))
    assert sorted((await ran.combined_output()).split()) == ["a", "b"]


async def test_a_new_exec_has_its_own_output(base: dagger.Container) -> None:
    ran = base.with_exec(["echo", "one"]).with_exec(["true"])
    assert await ran.stdout() == ""


async def test_output_is_that_of_the_last_exec_whatever_came_after_it(
    base: dagger.Container, registry: str
) -> None:
    ran = base.with_exec(["echo", "hi"])
    for later in (
        ran.with_env_variable("A", "1"),
        ran.with_workdir("/tmp"),
        ran.with_new_file("/x", "1"),
        ran.from_(f"{registry}/plain:1"),
        ran.with_rootfs(base.rootfs()),
    ):
        assert await later.stdout() == "hi\n"


async def test_without_an_exec_there_is_no_output(
    client: dagger.Client, base: dagger.Container, registry: str
) -> None:
    configured = client.container().from_(f"{registry}/configured:1")
    for question in (
        base.stdout(),
        base.stderr(),
        base.combined_output(),
        base.exit_code(),
        client.container().stdout(),
        configured.stdout(),  # a default command is not run unasked
    ):
        assert "no command has been set" in str(await failure(question))


async def test_bytes_that_are_no_text_are_replaced_one_by_one(base: dagger.Container) -> None:
    ran = base.with_exec(["printf", "\\377\\376a\\342\\202z"])
    assert await ran.stdout() == "\ufffd\ufffda\ufffd\ufffdz"


async def test_control_characters_stay(base: dagger.Container) -> None:
    ran = base.with_exec(["printf", "a\\r\\nb\\000c\\033[31mred"])
    assert await ran.stdout() == "a\r\nb\0c\x1b[31mred"


async def test_large_output_is_whole(base: dagger.Container) -> None:
    ran = base.with_exec(sh("dd if=/dev/zero bs=1000000 count=20 2>/dev/null | tr '\\0' x"))
    assert len(await ran.stdout()) == 20_000_000


async def test_a_process_left_behind_does_not_hold_the_exec(base: dagger.Container) -> None:
    async with asyncio.timeout(30):
        assert await base.with_exec(sh("sleep 100 & echo started")).stdout() == "started\n"


# -- failures ---------------------------------------------------------------------------------


async def test_a_failing_command_is_an_exec_error(base: dagger.Container) -> None:
    command = sh("printf '  out  \\n\\n'; printf '  err  \\n\\n' >&2; exit 7")
    for question in (base.with_exec(command).sync(), base.with_exec(command).stdout()):
        error = await failure(question)
        assert isinstance(error, dagger.ExecError)
        assert str(error).startswith("exit code: 7")
        assert (error.exit_code, error.command) == (7, command)
        assert (error.stdout, error.stderr) == ("out", "err")  # trimmed


async def test_an_error_holds_the_whole_output(base: dagger.Container) -> None:
    script = (
        "head -c 100000 /dev/zero | tr '\\0' x; head -c 40000 /dev/zero | tr '\\0' y >&2; exit 1"
    )
    error = await exec_error(base.with_exec(sh(script)))
    assert (len(error.stdout), len(error.stderr)) == (100_000, 40_000)
    assert len(str(error)) < 100


async def test_an_error_names_the_command_that_failed(base: dagger.Container) -> None:
    chain = base.with_exec(["true"]).with_exec(sh("exit 4")).with_exec(["echo", "never"])
    error = await exec_error(chain)
    assert (error.exit_code, error.command) == (4, sh("exit 4"))


async def test_a_command_that_is_not_there(base: dagger.Container) -> None:
    error = await exec_error(base.with_exec(["spam", "ham"]))
    assert (error.exit_code, error.command) == (1, ["spam", "ham"])
    assert error.stderr == 'exec: "spam": executable file not found in $PATH'


async def test_a_command_that_is_not_there_can_be_accepted(base: dagger.Container) -> None:
    ran = base.with_exec(["spam"], expect=ReturnType.ANY)
    assert await ran.exit_code() == 1
    assert await ran.stderr() == 'exec: "spam": executable file not found in $PATH\n'


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
async def test_a_command_that_cannot_be_executed(base: dagger.Container, path: str) -> None:
    error = await exec_error(base.with_exec([path]))
    assert error.exit_code == 1
    assert error.stderr == f"fork/exec {path}: permission denied"


async def test_a_shell_says_what_it_did_not_find(base: dagger.Container) -> None:
    error = await exec_error(base.with_exec(sh("spam")))
    assert (error.exit_code, error.stderr) == (127, "sh: spam: not found")


async def test_an_empty_container_has_no_commands(client: dagger.Client) -> None:
    error = await exec_error(client.container().with_exec(["echo", "x"]))
    assert error.stderr == 'exec: "echo": executable file not found in $PATH'


async def test_a_signal_is_an_exit_code(base: dagger.Container) -> None:
    assert (await exec_error(base.with_exec(sh("kill -9 $$")))).exit_code == 137


async def test_many_failures_at_once_are_each_told(base: dagger.Container) -> None:
    ran = (base.with_exec(sh(f"exit {1 + number % 5}")).sync() for number in range(15))
    errors = await asyncio.gather(*ran, return_exceptions=True)
    codes = [error.exit_code for error in errors if isinstance(error, dagger.ExecError)]
    assert codes == [1 + number % 5 for number in range(15)]


async def test_one_failure_among_many_leaves_the_others_alone(base: dagger.Container) -> None:
    ran = (base.with_exec(sh(f"[ {i} = 3 ] && exit 7; echo {i}")).stdout() for i in range(10))
    answers = await asyncio.gather(*ran, return_exceptions=True)
    assert isinstance(answers.pop(3), dagger.ExecError)
    assert answers == [f"{i}\n" for i in range(10) if i != 3]


# -- what is expected -------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 192, 255])
async def test_any_exit_code_can_be_accepted(base: dagger.Container, code: int) -> None:
    ran = base.with_exec(sh(f"echo out; touch /made; exit {code}"), expect=ReturnType.ANY)
    assert await ran.exit_code() == code
    assert await ran.stdout() == "out\n"
    assert await ran.file("/made").size() == 0


@pytest.mark.parametrize("expect", [ReturnType.ANY, ReturnType.FAILURE])
@pytest.mark.parametrize("code", [128, 137, 143, 191])
async def test_the_codes_of_signals_are_never_accepted(
    base: dagger.Container, code: int, expect: ReturnType
) -> None:
    error = await exec_error(base.with_exec(sh(f"exit {code}"), expect=expect))
    assert error.exit_code == code


async def test_failure_can_be_expected(base: dagger.Container) -> None:
    ran = base.with_exec(sh("exit 2"), expect=ReturnType.FAILURE)
    assert await ran.exit_code() == 2
    error = await exec_error(base.with_exec(sh("echo o; echo e >&2"), expect=ReturnType.FAILURE))
    assert str(error).startswith("exit code: 0")
    assert (error.exit_code, error.stdout, error.stderr) == (0, "o", "e")


async def test_an_accepted_failure_can_be_built_on(base: dagger.Container) -> None:
    ran = await base.with_exec(sh("exit 2"), expect=ReturnType.ANY).sync()
    assert await ran.exit_code() == 2
    assert await ran.with_exec(["echo", "on"]).stdout() == "on\n"


# -- what is remembered -----------------------------------------------------------------------


async def test_an_exec_runs_once(base: dagger.Container) -> None:
    ran = base.with_exec(sh("cat /proc/sys/kernel/random/uuid | tee /f"))
    first = await ran.stdout()
    assert first == await ran.stdout() == await ran.file("/f").contents()


async def test_equal_execs_asked_for_at_once_run_once(base: dagger.Container) -> None:
    fresh = base.with_env_variable("FRESH", unique())
    ran = (fresh.with_exec(sh("sleep 1; cat /proc/sys/kernel/random/uuid")) for _ in range(3))
    assert len(set(await asyncio.gather(*(one.stdout() for one in ran)))) == 1


async def test_an_unexpected_failure_is_not_remembered(base: dagger.Container) -> None:
    script = sh("cat /proc/sys/kernel/random/uuid; exit 1")
    first = await exec_error(base.with_exec(script))
    assert first.stdout != (await exec_error(base.with_exec(script))).stdout


async def test_an_accepted_failure_is_remembered(base: dagger.Container) -> None:
    async def ask() -> str:
        script = sh("cat /proc/sys/kernel/random/uuid; exit 1")
        return await base.with_exec(script, expect=ReturnType.ANY).stdout()

    assert await ask() == await ask()


async def test_another_order_of_variables_is_another_exec(base: dagger.Container) -> None:
    one = base.with_env_variable("A", "1").with_env_variable("B", "2").with_exec(UUID)
    two = base.with_env_variable("B", "2").with_env_variable("A", "1").with_exec(UUID)
    assert await one.stdout() != await two.stdout()


async def test_a_label_is_none_of_a_command_s_business(base: dagger.Container) -> None:
    one = await base.with_label("a", "1").with_exec(UUID).stdout()
    two = await base.with_label("a", "2").with_exec(UUID).stdout()
    assert (one == two) is on(dagger=False, embedded=True)


async def test_an_exec_that_one_client_gives_up_can_be_asked_for_again(
    base: dagger.Container,
) -> None:
    ran = base.with_env_variable("FRESH", unique()).with_exec(sh("sleep 2; echo done"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await ran.stdout()
    await asyncio.sleep(on(dagger=1.5, embedded=0))  # Dagger answers with the other's cancellation
    assert await ran.stdout() == "done\n"


# -- input and redirection --------------------------------------------------------------------


async def test_stdin(base: dagger.Container) -> None:
    assert await base.with_exec(["cat"], stdin="from here").stdout() == "from here"


async def test_without_stdin_there_is_nothing_to_read(base: dagger.Container) -> None:
    assert await base.with_exec(sh("cat | wc -c")).stdout() == "0\n"


async def test_stdin_from_a_file(base: dagger.Container) -> None:
    ran = base.with_new_file("/w/in", "from file").with_workdir("/w")
    assert await ran.with_exec(["cat"], redirect_stdin="/w/in").stdout() == "from file"
    assert await ran.with_exec(["cat"], redirect_stdin="in").stdout() == "from file"


async def test_stdin_comes_from_one_place(base: dagger.Container) -> None:
    ran = base.with_new_file("/in", "x").with_exec(["cat"], stdin="s", redirect_stdin="/in")
    assert "cannot set both stdin and redirectStdin" in str(await failure(ran.sync()))


async def test_redirected_output_goes_to_files_too(base: dagger.Container) -> None:
    ran = base.with_workdir("/tmp").with_exec(
        sh("echo out; echo err >&2"), redirect_stdout="/o", redirect_stderr="relative"
    )
    assert await ran.file("/o").contents() == await ran.stdout() == "out\n"
    assert await ran.file("/tmp/relative").contents() == await ran.stderr() == "err\n"


async def test_redirected_output_is_in_the_error(base: dagger.Container) -> None:
    ran = base.with_exec(sh("echo out; echo err >&2; exit 2"), redirect_stdout="/o")
    error = await exec_error(ran)
    assert (error.exit_code, error.stdout, error.stderr) == (2, "out", "err")


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
async def test_a_redirection_that_cannot_be_opened(base: dagger.Container, stream: str) -> None:
    redirect = {f"redirect_{stream}": "/no/such/place"}
    error = await exec_error(base.with_exec(["cat"], **redirect))
    assert error.exit_code == -1
    assert f"open redirect {stream} file" in str(error)
    assert "/no/such/place: no such file or directory" in str(error)


# -- which command ----------------------------------------------------------------------------


async def test_an_entrypoint_is_used_only_when_asked_for(base: dagger.Container) -> None:
    entered = base.with_entrypoint(["echo", "entry"])
    assert await entered.with_exec(["echo", "x"]).stdout() == "x\n"
    assert await entered.with_exec(["x"], use_entrypoint=True).stdout() == "entry x\n"
    assert await base.with_exec(["echo", "x"], use_entrypoint=True).stdout() == "x\n"


async def test_default_arguments_are_used_when_there_are_none(base: dagger.Container) -> None:
    default = base.with_entrypoint(["echo", "entry"]).with_default_args(["echo", "default"])
    assert await default.with_exec([]).stdout() == "default\n"
    ran = default.with_exec([], use_entrypoint=True)
    assert await ran.stdout() == "entry echo default\n"


async def test_no_command_at_all(base: dagger.Container) -> None:
    assert "no command has been set" in str(await failure(base.with_exec([]).stdout()))
    only_entrypoint = base.with_entrypoint(["echo", "entry"])
    assert "no command has been set" in str(await failure(only_entrypoint.with_exec([]).stdout()))


async def test_arguments_arrive_as_they_are(base: dagger.Container) -> None:
    strange = ["a b", "q\"'", "n\nl", "é✓", "", "\\t", "$X"]
    ran = base.with_exec(["printf", "[%s]", *strange])
    assert await ran.stdout() == "".join(f"[{one}]" for one in strange)


async def test_arguments_are_expanded_when_asked_for(base: dagger.Container) -> None:
    named = base.with_env_variable("X", "val")
    assert await named.with_exec(["echo", "${X}", "$X", "$$"]).stdout() == "${X} $X $$\n"
    words = ["${X}", "$X", "a${X}b", "${NOPE}", "$NOPE", "$$", "$$X", "\\$X", "${X:-d}"]
    ran = named.with_exec(["printf", "[%s]", *words], expand=True)
    assert await ran.stdout() == "[val][val][avalb][][][][X][\\val][]"


async def test_secrets_are_not_expanded(client: dagger.Client, base: dagger.Container) -> None:
    secret = client.set_secret(unique("expand-"), "hush-hush")
    ran = base.with_secret_variable("S", secret).with_exec(["echo", "${S}"], expand=True)
    message = str(await failure(ran.stdout()))
    assert 'expand cannot be used with secret env variable "S"' in message
    assert (
        await base.with_secret_variable("S", secret)
        .with_exec(["echo", "no variable"], expand=True)
        .stdout()
        == "no variable\n"
    )


async def test_of_very_much_output_an_error_has_the_end(base: dagger.Container) -> None:
    script = "seq 1 50000; seq 1 50000 >&2; exit 3"
    error = await failure(base.with_exec(sh(script)).sync())
    assert isinstance(error, dagger.ExecError)
    whole = "".join(f"{number}\n" for number in range(1, 50001))
    limit = 100 << 10
    omitted = f"[omitting {len(whole) - limit} bytes]..."
    for said in (error.stdout, error.stderr):
        assert said == omitted + whole[len(whole) - limit + len(omitted) :].rstrip("\n")
