"""The top of the API: where programs start, and how they come back to objects by ID."""

from __future__ import annotations

from buildonce.engine import platforms
from buildonce.engine.engine import Engine
from buildonce.engine.fileops import FileActions
from buildonce.engine.operations import operation
from buildonce.engine.paths import check_name
from buildonce.engine.states import (
    CacheState,
    ContainerState,
    DirectoryState,
    FileState,
    SecretState,
)

# The newest release of Dagger whose API the schema holds; clients warn of older ones.
API_VERSION = "v0.21.11"


@operation("Query.version")
async def version(engine: Engine, self: None) -> str:
    return API_VERSION


@operation("Query.defaultPlatform")
async def default_platform(engine: Engine, self: None) -> str:
    return engine.platform


@operation("Query.container")
def container(engine: Engine, self: None, platform: str | None = None) -> ContainerState:
    if platform is None:
        return ContainerState(engine.platform)
    return ContainerState(platforms.normalize(platform, engine.platform))


@operation("Query.directory")
def directory(engine: Engine, self: None) -> DirectoryState:
    return DirectoryState(platform=engine.platform)


@operation("Query.file")
def file(
    engine: Engine, self: None, name: str, contents: str, permissions: int | None = 0o644
) -> FileState:
    check_name(name)
    actions = FileActions(None).mkfile(
        f"/{name}", contents.encode(), mode=0o644 if permissions is None else permissions
    )
    return FileState(actions.done(platform=engine.platform), f"/{name}", engine.platform)


@operation("Query.cacheVolume")
def cache_volume(
    engine: Engine,
    self: None,
    key: str,
    source: DirectoryState | None = None,
    sharing: str = "SHARED",
    owner: str = "",
    namespace: str = "",
) -> CacheState:
    return CacheState(f"{namespace}:{key}" if namespace else key, source, sharing, owner)


@operation("Query.setSecret")
async def set_secret(engine: Engine, self: None, name: str, plaintext: str) -> SecretState:
    return engine.secrets.put(name, plaintext)


@operation("Query.secret")
async def secret(engine: Engine, self: None, uri: str, cache_key: str | None = None) -> SecretState:
    return await engine.secrets.fetch(uri, cache_key)


@operation("Secret.name")
async def secret_name(engine: Engine, self: SecretState) -> str:
    return self.name


@operation("Secret.uri")
async def secret_uri(engine: Engine, self: SecretState) -> str:
    return self.uri


@operation("Secret.plaintext")
async def secret_plaintext(engine: Engine, self: SecretState) -> str:
    return (await engine.secrets.value(self.identity)).decode()
