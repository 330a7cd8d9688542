"""Commands in containers, and what they printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildonce.engine.engine import Engine
from buildonce.engine.errors import NoCommand, NotServed, QueryFailed
from buildonce.engine.lowering import OUT_IN_RESULT, Command, run
from buildonce.engine.operations import operation
from buildonce.engine.paths import expand_variables, resolve
from buildonce.engine.states import ContainerState
from buildonce.engine.text import text


@operation("Container.withExec")
def with_exec(
    engine: Engine,
    self: ContainerState,
    args: Sequence[str],
    use_entrypoint: bool = False,
    stdin: str = "",
    redirect_stdin: str = "",
    redirect_stdout: str = "",
    redirect_stderr: str = "",
    expect: str = "SUCCESS",
    experimental_privileged_nesting: bool = False,
    insecure_root_capabilities: bool = False,
    expand: bool = False,
    no_init: bool = False,
) -> ContainerState:
    if experimental_privileged_nesting:
        raise NotServed("Container.withExec(experimentalPrivilegedNesting:)")
    if stdin and redirect_stdin:
        raise QueryFailed("cannot set both stdin and redirectStdin")
    command = Command(
        args=arguments(self, args, use_entrypoint=use_entrypoint, expand=expand),
        stdin=stdin or None,
        redirect_stdin=resolve(self, redirect_stdin, expand) if redirect_stdin else "",
        redirect_stdout=resolve(self, redirect_stdout, expand) if redirect_stdout else "",
        redirect_stderr=resolve(self, redirect_stderr, expand) if redirect_stderr else "",
        expect=expect,
        privileged=insecure_root_capabilities,
    )
    return run(engine, self, command)


def arguments(
    container: ContainerState, args: Sequence[str], *, use_entrypoint: bool, expand: bool
) -> tuple[str, ...]:
    """What is to be run: `args`, else the default arguments, after the entrypoint if asked for."""
    command = list(args) or list(container.image.command)
    if expand:
        command = [expand_variables(container, item) for item in command]
    if use_entrypoint:
        command = [*container.image.entrypoint, *command]
    if not command:
        raise NoCommand()
    if any("\0" in item for item in command):
        raise QueryFailed("a command's argument cannot hold a null character")
    return tuple(command)


async def _result(engine: Engine, container: ContainerState, name: str) -> bytes:
    if container.last is None:
        await engine.reference(container.rootfs)  # what made it may be what is wrong
        raise NoCommand()
    return await engine.read(container.last.output, f"{OUT_IN_RESULT}/{name}")


@operation("Container.stdout")
async def stdout(engine: Engine, self: ContainerState) -> str:
    return text(await _result(engine, self, "stdout"))


@operation("Container.stderr")
async def stderr(engine: Engine, self: ContainerState) -> str:
    return text(await _result(engine, self, "stderr"))


@operation("Container.combinedOutput")
async def combined_output(engine: Engine, self: ContainerState) -> str:
    return text(await _result(engine, self, "combined"))


@operation("Container.exitCode")
async def exit_code(engine: Engine, self: ContainerState) -> int:
    return int(await _result(engine, self, "exit"))


@operation("Container.experimentalWithAllGPUs", "Container.experimentalWithGPU")
def with_gpu(engine: Engine, self: ContainerState, **_: Any) -> ContainerState:
    raise NotServed("Container.experimentalWithGPU")
