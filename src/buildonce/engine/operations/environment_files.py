"""Environment files (`.env`): read, edited, and laid over a container's variables."""

from __future__ import annotations

import os
from dataclasses import dataclass

from buildonce.engine import dotenv
from buildonce.engine.engine import Engine
from buildonce.engine.fileops import FileActions
from buildonce.engine.images import put, with_image
from buildonce.engine.operations import operation
from buildonce.engine.operations.container import Pair
from buildonce.engine.operations.file import contents
from buildonce.engine.states import ContainerState, FileState


@dataclass(frozen=True, slots=True)
class EnvFileState:
    """Variables of an environment file."""

    file: dotenv.File


@operation("Query.envFile")
def env_file(engine: Engine, self: None, expand: bool | None = None) -> EnvFileState:
    return EnvFileState(dotenv.File())


@operation("File.asEnvFile")
async def as_env_file(engine: Engine, self: FileState, expand: bool | None = None) -> EnvFileState:
    return EnvFileState(dotenv.File.parse(await contents(engine, self)))


@operation("EnvFile.withVariable")
def with_variable(engine: Engine, self: EnvFileState, name: str, value: str) -> EnvFileState:
    return EnvFileState(self.file.put(name, value))


@operation("EnvFile.withoutVariable")
def without_variable(engine: Engine, self: EnvFileState, name: str) -> EnvFileState:
    return EnvFileState(self.file.drop(name))


@operation("EnvFile.namespace")
def namespace(engine: Engine, self: EnvFileState, prefix: str) -> EnvFileState:
    return EnvFileState(self.file.namespace(prefix))


@operation("EnvFile.exists")
async def exists(engine: Engine, self: EnvFileState, name: str) -> bool:
    return name in dict(self.file.lines)


@operation("EnvFile.get")
async def get(engine: Engine, self: EnvFileState, name: str, raw: bool | None = None) -> str:
    if raw:
        return dict(self.file.lines).get(name, "")
    return self.file.value(name, os.environ) or ""


@operation("EnvFile.variables")
async def variables(engine: Engine, self: EnvFileState, raw: bool | None = None) -> list[Pair]:
    found = dict(sorted(self.file.lines)) if raw else self.file.expanded(os.environ)
    return [Pair(name, value) for name, value in found.items()]


@operation("EnvFile.asFile")
def as_file(engine: Engine, self: EnvFileState) -> FileState:
    actions = FileActions(None).mkfile("/.env", self.file.text().encode())
    return FileState(actions.done(platform=engine.platform), "/.env", engine.platform)


@operation("Container.withEnvFileVariables")
def with_env_file_variables(
    engine: Engine, self: ContainerState, source: EnvFileState
) -> ContainerState:
    env = self.image.env
    for name, value in source.file.expanded(os.environ).items():
        env = put(env, name, value)
    return with_image(self, env=env)
