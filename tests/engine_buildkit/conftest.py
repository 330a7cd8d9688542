"""A private buildkitd for the tests with a real one, and small graphs to solve on it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from buildonce.engine.buildkit import Build, Client, ExecSpec, Session, daemon, pb
from buildonce.engine.buildkit.daemon import Daemon
from buildonce.engine.buildkit.daemon_setup import DaemonConfig, Registry
from buildonce.toolchain import ensure, find

OUT = "/.buildonce/out"


class Graph:
    """Operations collected into definitions; each method answers a vertex's digest."""

    def __init__(self, busybox: bytes, shim: bytes) -> None:
        self._ops: list[bytes] = []
        self.root = self.files({"/bin/busybox": busybox})
        self.shim = self.files({"/shim": shim})

    def add(self, op: pb.Op) -> str:
        data = op.SerializeToString(deterministic=True)
        if data not in self._ops:
            self._ops.append(data)
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def definition(self, vertex: str, output: int = 0) -> pb.Definition:
        terminal = pb.Op(inputs=[pb.Input(digest=vertex, index=output)])
        needed, used = {vertex}, []
        for data in reversed(self._ops):  # inputs were added before what uses them
            if "sha256:" + hashlib.sha256(data).hexdigest() in needed:
                used.insert(0, data)
                needed.update(item.digest for item in pb.Op.FromString(data).inputs)
        definition = pb.Definition()
        getattr(definition, "def").extend([*used, terminal.SerializeToString()])
        return definition

    def files(self, files: dict[str, bytes]) -> str:
        op = pb.Op()
        for folder in sorted({str(Path(path).parent) for path in files} - {"/"}):
            self._action(op).mkdir.CopyFrom(
                pb.FileActionMkDir(path=folder, mode=0o755, makeParents=True, timestamp=-1)
            )
        for path, data in files.items():
            self._action(op).mkfile.CopyFrom(
                pb.FileActionMkFile(path=path, mode=0o755, data=data, timestamp=-1)
            )
        op.file.actions[-1].output = 0
        return self.add(op)

    def folder(self, path: str) -> str:
        op = pb.Op()
        self._action(op).mkdir.CopyFrom(
            pb.FileActionMkDir(path=path, mode=0o777, makeParents=True, timestamp=-1)
        )
        op.file.actions[-1].output = 0
        return self.add(op)

    @staticmethod
    def _action(op: pb.Op) -> pb.FileAction:
        before = len(op.file.actions) - 1
        return op.file.actions.add(input=before, secondaryInput=-1, output=-1)

    def local(self, name: str, session: str, **attributes: str) -> str:
        op = pb.Op()
        op.source.identifier = f"local://{name}"
        op.source.attrs["local.session"] = session
        for key, value in attributes.items():
            op.source.attrs[f"local.{key}"] = value
        return self.add(op)

    def exec(
        self,
        script: str | Sequence[str],
        *,
        root: str | None = None,
        env: Sequence[str] = (),
        user: str = "",
        mounts: Sequence[pb.Mount] = (),
        inputs: Sequence[str] = (),
        secret_env: dict[str, str] | None = None,
        **spec: Any,
    ) -> str:
        """A command under the shim; mount inputs of `inputs` start at 3. Output 1 is its out."""
        args = ["busybox", "sh", "-c", script] if isinstance(script, str) else list(script)
        op = pb.Op()
        for vertex in (root or self.root, self.shim, self.folder("/o"), *inputs):
            op.inputs.add(digest=vertex)
        meta = op.exec.meta
        meta.args.append("/.buildonce/shim")
        meta.cwd = "/"
        meta.user = user
        names = list(secret_env or {})
        text = ExecSpec(args=args, out=f"{OUT}/o", secret_env=names, **spec).to_json()
        meta.env.extend(["PATH=/bin", *env, f"_BUILDONCE_EXEC={text}"])
        op.exec.mounts.add(input=0, dest="/", output=0)
        op.exec.mounts.add(
            input=1, dest="/.buildonce/shim", selector="/shim", output=-1, readonly=True
        )
        op.exec.mounts.add(input=2, dest=OUT, output=1)
        op.exec.mounts.extend(mounts)
        for name, secret in (secret_env or {}).items():
            op.exec.secretenv.add(ID=secret, name=name)
        return self.add(op)


@pytest.fixture(scope="session")
def busybox() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        pytest.fail("these tests need a static busybox: apt-get install busybox-static")
    return Path(path).read_bytes()


@pytest.fixture(scope="session")
async def shim_path(anyio_backend: str) -> Path:
    return (await ensure("shim")).path


@pytest.fixture
def graph(busybox: bytes, shim_path: Path) -> Graph:
    return Graph(busybox, shim_path.read_bytes())


@pytest.fixture(scope="session")
def buildkitd() -> Path:
    found = find("buildkitd")
    if found is None:
        pytest.fail("these tests need buildkitd: run `make setup`")
    return found.path


@pytest.fixture(scope="session")
async def running(
    anyio_backend: str, buildkitd: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Daemon]:
    """A daemon of these tests' own."""
    folder = tmp_path_factory.mktemp("buildkit")
    config = DaemonConfig(registries={"127.0.0.1": Registry(http=True)})
    async with daemon.start(buildkitd, folder, config=config) as started:
        yield started


@pytest.fixture
async def client(running: Daemon) -> AsyncIterator[Client]:
    async with Client.connect(running.address) as connected:
        yield connected


@pytest.fixture
async def session(client: Client) -> AsyncIterator[Session]:
    async with client.session() as opened:
        yield opened


@pytest.fixture
async def build(client: Client, session: Session) -> AsyncIterator[Build]:
    async with client.build(session) as opened:
        yield opened


@pytest.fixture
def fill() -> Callable[[Path, dict[str, str]], Path]:
    """Write files, by their paths, into a folder."""

    def write(folder: Path, files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write
