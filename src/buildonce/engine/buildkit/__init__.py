"""Speaking BuildKit's protocol: the lowest layer of the embedded engine.

async with Client.connect("unix:///run/buildkit/buildkitd.sock") as client:
    async with client.session() as session, client.build(session) as build:
        result = await build.solve(definition)
        text = await build.read_file(result.ref, "/etc/os-release")
"""

from __future__ import annotations

import os

# gRPC's own messages to standard error name no address and no remedy; our errors do. It reads this
# when it is loaded, which is below.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from buildonce.engine.buildkit.build import Build, ResolvedImage, Result
from buildonce.engine.buildkit.client import (
    TLS,
    Client,
    DaemonInfo,
    Image,
    StatusUpdate,
    Usage,
    Worker,
)
from buildonce.engine.buildkit.container import Container, Process
from buildonce.engine.buildkit.errors import (
    BuildkitError,
    Canceled,
    DaemonGone,
    DaemonRefused,
    DirectoryChanged,
    ImageNotFound,
    PathNotFound,
    SolveError,
    Unauthorized,
)
from buildonce.engine.buildkit.exports import CacheEntry, Export
from buildonce.engine.buildkit.filesend import ByteSink, Receiver
from buildonce.engine.buildkit.filesync import DirectorySource
from buildonce.engine.buildkit.listing import CannotRead, walk
from buildonce.engine.buildkit.patterns import BadPattern
from buildonce.engine.buildkit.platforms import platform_text
from buildonce.engine.buildkit.progress import OnStatus
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.buildkit.session import SOURCE, Credentials, Session, SocketConnection
from buildonce.engine.buildkit.shim import ExecSpec, Relay
from buildonce.engine.buildkit.stats import Stat
from buildonce.engine.buildkit.tree import Entry, Tree

__all__ = [
    "SOURCE",
    "TLS",
    "BadPattern",
    "Build",
    "BuildkitError",
    "ByteSink",
    "CacheEntry",
    "Canceled",
    "CannotRead",
    "Client",
    "Container",
    "Credentials",
    "DaemonGone",
    "DaemonInfo",
    "DaemonRefused",
    "DirectoryChanged",
    "DirectorySource",
    "Entry",
    "ExecSpec",
    "Export",
    "Image",
    "ImageNotFound",
    "OnStatus",
    "PathNotFound",
    "Process",
    "Receiver",
    "Relay",
    "ResolvedImage",
    "Result",
    "Session",
    "SocketConnection",
    "SolveError",
    "Stat",
    "StatusUpdate",
    "Tree",
    "Unauthorized",
    "Usage",
    "Worker",
    "pb",
    "platform_text",
    "walk",
]
