"""A container's command as one operation of the build graph.

The command runs under the shim (`engine/shim/`), mounted from outside the image, which keeps what
it writes (`stdout`, `stderr`, `combined`, `exit`) in a scratch mount of its own. What must stay
out of layers and cache keys (certificates, proxies, package indexes, service addresses, secrets)
reaches the command as BuildKit's secrets, which are in neither.

Mount 0 is the root file system, 1 the shim, 2 its output; the user's own follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from buildonce.engine import llb
from buildonce.engine.buildkit import ExecSpec, pb, shim
from buildonce.engine.fileops import FileActions
from buildonce.engine.llb import Output
from buildonce.engine.states import (
    DEFAULT_PATH,
    ContainerState,
    ExecState,
    Mount,
    MountKind,
)

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

ROOT = "/.buildonce"
SHIM = shim.PATH
OUT_MOUNT = f"{ROOT}/out"
OUT = f"{OUT_MOUNT}/o"  # a folder in the mount that any user may write to
OUT_IN_RESULT = "/o"
STDIN = f"{ROOT}/stdin"
HOST_CA = f"{ROOT}/ca.pem"
SPECIFICATION = shim.SPECIFICATION

# No host name is set: BuildKit keeps network namespaces ready only for containers without one.

HOST_SETTINGS_ID = "buildonce:host-settings"
HOST_CA_ID = "buildonce:host-ca"
HOSTS_FILE_ID = "buildonce:hosts:"
NOT_GIVEN = "buildonce:not-given"

_EXPECT: Mapping[str, Literal["success", "failure", "any"]] = {
    "SUCCESS": "success",
    "FAILURE": "failure",
    "ANY": "any",
}
_SHARING = {"SHARED": pb.SHARED, "PRIVATE": pb.PRIVATE, "LOCKED": pb.LOCKED}


@dataclass(frozen=True, slots=True)
class Command:
    """One command and how to treat it.

    Attributes:
        expect: `SUCCESS`, `FAILURE` or `ANY`: which exit codes are not an error.
    """

    args: tuple[str, ...]
    stdin: str | None = None
    redirect_stdin: str = ""
    redirect_stdout: str = ""
    redirect_stderr: str = ""
    expect: str = "SUCCESS"
    privileged: bool = False


class Mounts:
    """The mounts of one exec, with the inputs and outputs numbered as they are added."""

    def __init__(self, op: pb.Op) -> None:
        self.op = op
        self.inputs: list[Output] = []
        self.outputs = 0

    def input(self, value: Output | None) -> int:
        if value is None:
            return -1
        if value not in self.inputs:
            self.inputs.append(value)
        return self.inputs.index(value)

    def add(
        self,
        target: str,
        source: Output | None,
        *,
        path: str = "/",
        writable: bool = False,
        **rest: Any,
    ) -> int:
        """Add a mount and answer the number of its output, -1 when it has none."""
        number = -1
        if writable:
            number, self.outputs = self.outputs, self.outputs + 1
        mount = self.op.exec.mounts.add(
            input=self.input(source),
            dest=target,
            output=number,
            readonly=not writable and "mountType" not in rest,
            **rest,
        )
        if path != "/":
            mount.selector = path
        return number


def name_of(args: Sequence[str]) -> str:
    """How progress calls a command; long ones are cut."""
    text = " ".join(args)
    return f"exec {text}" if len(text) <= 200 else f"exec {text[:197]}…"


def run(engine: Engine, container: ContainerState, command: Command) -> ContainerState:
    """`container` after `command`."""
    op = llb.new_op(container.platform)
    mounts = Mounts(op)
    root = mounts.add("/", container.rootfs, writable=True)
    mounts.add(SHIM, engine.shim, path="/shim")
    out = mounts.add(OUT_MOUNT, _writable_folder(container.platform), writable=True)
    host(mounts)
    if command.stdin is not None:
        mounts.add(STDIN, _text(command.stdin, container.platform), path="/stdin")
    secret_files = user_mounts(mounts, container)
    hosts_file(engine, mounts, container)

    specification = ExecSpec(
        args=command.args,
        stdin=STDIN if command.stdin is not None else command.redirect_stdin or None,
        redirect_stdout=command.redirect_stdout or None,
        redirect_stderr=command.redirect_stderr or None,
        out=OUT,
        expect=_EXPECT[command.expect],
        secret_env=[name for name, _ in container.secrets],
        secret_files=secret_files,
        tracing=tracing(container.image.env),
        caches=[m.cache.key for m in container.mounts if m.cache is not None],
    )
    _meta(op, container, specification)
    if command.privileged:
        op.exec.security = pb.INSECURE

    _volatile(engine, op, mounts, container)
    made = llb.vertex(op, mounts.inputs, name=name_of(command.args))
    if container.bindings:
        engine.services.bind(made, container.bindings)
    return replace(
        container,
        rootfs=Output(made, root),
        mounts=_after(container.mounts, made, first=out + 1),
        last=ExecState(command.args, Output(made, out)),
        address=None,
    )


def _meta(op: pb.Op, container: ContainerState, specification: ExecSpec) -> None:
    meta = op.exec.meta
    meta.args.append(SHIM)
    meta.cwd = container.workdir
    meta.user = container.image.user
    meta.removeMountStubsRecursive = True  # or the image would keep our empty folders
    env = dict(container.image.env)
    env.setdefault("PATH", DEFAULT_PATH)
    meta.env.extend(f"{key}={value}" for key, value in env.items())
    meta.env.append(f"{SPECIFICATION}={specification.to_json()}")
    for name, secret in container.secrets:
        op.exec.secretenv.add(ID=secret.identity, name=name)


def _volatile(engine: Engine, op: pb.Op, mounts: Mounts, container: ContainerState) -> None:
    """Variables by the way of secrets, each named after the command it is for, not its value."""
    if not container.volatile:
        return
    digest = llb.vertex(_copy_of(op), mounts.inputs).digest
    for name, value in container.volatile:
        identity = f"buildonce:volatile:{digest}:{name}"
        engine.secrets.keep(identity, value.encode())
        op.exec.secretenv.add(ID=identity, name=name)


def _copy_of(op: pb.Op) -> pb.Op:
    other = pb.Op()
    other.CopyFrom(op)
    return other


def tracing(env: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The user's own of the variables that the daemon sets for its tracing."""
    return {name: value for name, value in env if name in shim.TRACING}


def host(mounts: Mounts) -> None:
    # Optional and the same for everyone, so that cache keys do not depend on the machine.
    mounts.op.exec.secretenv.add(ID=HOST_SETTINGS_ID, name=shim.HOST, optional=True)
    mounts.add(
        HOST_CA,
        None,
        mountType=pb.SECRET,
        secretOpt=pb.SecretOpt(ID=HOST_CA_ID, mode=0o444, optional=True),
    )


def hosts_file(engine: Engine, mounts: Mounts, container: ContainerState) -> None:
    identity = engine.services.hosts_file(container.bindings)
    mounts.add(
        "/etc/hosts",
        None,
        mountType=pb.SECRET,
        secretOpt=pb.SecretOpt(ID=HOSTS_FILE_ID + identity, mode=0o644),
    )


def user_mounts(mounts: Mounts, container: ContainerState) -> list[str]:
    secret_files: list[str] = []
    for mount in container.mounts:
        match mount.kind:
            case MountKind.DIRECTORY | MountKind.FILE:
                mounts.add(
                    mount.target, mount.output, path=mount.path, writable=not mount.read_only
                )
            case MountKind.CACHE:
                assert mount.cache is not None
                mounts.add(
                    mount.target,
                    mount.output,
                    path=mount.path,
                    mountType=pb.CACHE,
                    cacheOpt=pb.CacheOpt(ID=mount.cache.key, sharing=_SHARING[mount.sharing]),
                )
            case MountKind.TEMPORARY:
                mounts.add(
                    mount.target,
                    None,
                    mountType=pb.TMPFS,
                    TmpfsOpt=pb.TmpfsOpt(size=mount.size),
                )
            case MountKind.SECRET:
                assert mount.secret is not None
                secret_files.append(mount.target)
                user, group = _numbers(mount.owner)
                option = pb.SecretOpt(ID=mount.secret.identity, uid=user, gid=group)
                option.mode = 0o400 if mount.mode is None else mount.mode
                mounts.add(mount.target, None, mountType=pb.SECRET, secretOpt=option)
            case MountKind.SOCKET:
                assert mount.socket is not None
                user, group = _numbers(mount.owner)
                option_ssh = pb.SSHOpt(ID=mount.socket.address, uid=user, gid=group, mode=0o600)
                mounts.add(mount.target, None, mountType=pb.SSH, SSHOpt=option_ssh)
    return secret_files


def _numbers(owner: str) -> tuple[int, int]:
    """`1000:1000` as numbers; names were resolved when the mount was made."""
    if not owner:
        return 0, 0
    user, _, group = owner.partition(":")
    return int(user), int(group or user)


def _after(mounts: tuple[Mount, ...], made: llb.Vertex, *, first: int) -> tuple[Mount, ...]:
    """The mounts with what the command may have written into them."""
    result: list[Mount] = []
    number = first
    for mount in mounts:
        writable = mount.kind in (MountKind.DIRECTORY, MountKind.FILE) and not mount.read_only
        if writable:
            result.append(replace(mount, output=Output(made, number)))
            number += 1
        else:
            result.append(mount)
    return tuple(result)


def _writable_folder(platform: str) -> Output:
    return FileActions(None).mkdir(OUT_IN_RESULT, mode=0o777).done(platform=platform)


def _text(content: str, platform: str) -> Output:
    return FileActions(None).mkfile("/stdin", content.encode(), mode=0o444).done(platform=platform)


def wrap(
    engine: Engine, root: Output, secrets: Mapping[str, str], sockets: Sequence[str]
) -> Output:
    """A frontend's graph with every command under the shim, so that the host's certificates and
    proxies reach a Dockerfile's `RUN` too, without being in a layer or cache key.

    A Dockerfile is hostile input: it gets the secrets and sockets that it was given, and no other.

    Args:
        secrets: identity by the name that the Dockerfile uses.
        sockets: the addresses of the SSH agents that it may use; the first is the default.
    """
    new: dict[str, llb.Vertex] = {}
    for vertex in llb.walk([root]):
        op = pb.Op.FromString(vertex.op)
        inputs = [Output(new[i.vertex.digest], i.index) for i in vertex.inputs]
        if op.WhichOneof("op") == "exec" and not _is_ours(op):
            mounts = Mounts(op)
            mounts.inputs = inputs
            mounts.outputs = max((m.output for m in op.exec.mounts), default=-1) + 1
            mounts.add(SHIM, engine.shim, path="/shim")
            mounts.add(OUT_MOUNT, _writable_folder(engine.platform), writable=True)
            _only_given(op, secrets, sockets)
            given = [variable.name for variable in op.exec.secretenv]
            host(mounts)
            specification = ExecSpec(
                args=list(op.exec.meta.args),
                out=OUT,
                tracing=tracing(_pairs(op.exec.meta.env)),
                secret_env=given,
                secret_files=[
                    m.dest
                    for m in op.exec.mounts
                    if m.mountType == pb.SECRET and m.dest not in _OURS
                ],
            )
            op.exec.meta.env.append(f"{SPECIFICATION}={specification.to_json()}")
            del op.exec.meta.args[:]
            op.exec.meta.args.append(SHIM)
            op.exec.meta.removeMountStubsRecursive = True
            inputs = mounts.inputs
        new[vertex.digest] = llb.changed(vertex, op, inputs)
    return Output(new[root.vertex.digest], root.index)


def _pairs(env: Iterable[str]) -> Iterable[tuple[str, str]]:
    for variable in env:
        name, _, value = variable.partition("=")
        yield name, value


_OURS = (SHIM, OUT_MOUNT, HOST_CA)


def _only_given(op: pb.Op, secrets: Mapping[str, str], sockets: Sequence[str]) -> None:
    for mount in op.exec.mounts:
        if mount.dest in _OURS:
            continue
        if mount.mountType == pb.SECRET:
            mount.secretOpt.ID = _given(secrets, mount.secretOpt.ID)
        if mount.mountType == pb.SSH:
            mount.SSHOpt.ID = sockets[0] if sockets else NOT_GIVEN
    for variable in op.exec.secretenv:
        variable.ID = _given(secrets, variable.ID)


def _given(secrets: Mapping[str, str], name: str) -> str:
    return secrets.get(name, f"{NOT_GIVEN}:{name}")


def _is_ours(op: pb.Op) -> bool:
    return list(op.exec.meta.args) == [SHIM]
