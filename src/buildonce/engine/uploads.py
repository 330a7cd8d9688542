"""Directories of the client's machine, sent to the daemon when it lacks them.

A directory is walked and digested first. The digest names the session that would serve it, and
that name is part of BuildKit's cache key: the same content is a hit, in this session or a later
one, from this folder or another, and then nothing is sent. Else the daemon looks for what it got
from that folder the last time, which the hint names, and asks only for the files that differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from buildonce.engine import llb
from buildonce.engine.buildkit import SOURCE, Client, DirectorySource, walk
from buildonce.engine.fileops import FileActions
from buildonce.engine.llb import Output


class Uploads:
    """The directories that this session offers; open until it ends."""

    def __init__(
        self,
        client: Client,
        cache: Path,
        platform: str,
        stack: AsyncExitStack,
        *,
        portable: bool = False,
    ) -> None:
        """
        Args:
            portable: make what is built on a directory findable in a remote cache.
        """
        self._client = client
        self._cache = cache
        self._stack = stack
        self._portable = portable
        self.platform = platform
        self._offered: dict[str, DirectorySource] = {}

    def find(self, name: str) -> DirectorySource | None:
        """What is offered under a digest. The build's own session answers too: the daemon forgets a
        session when another of the same content ends, and then asks that one."""
        return self._offered.get(name)

    async def directory(
        self,
        root: Path,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        gitignore: bool = False,
        shown: str = "",
        made_here: bool = False,
    ) -> Output:
        """`root` as a source of the graph, with what `include` and `exclude` leave of it.

        Args:
            made_here: it is a new folder each time, so no earlier upload of it is looked for, and
                equal content is the same source, in other sessions too.
        """
        tree = await walk(
            root,
            include=list(include),
            exclude=list(exclude),
            gitignore=gitignore,
            cache=self._cache,
        )
        session_id = f"buildonce-{tree.digest.removeprefix('sha256:')}"
        if tree.digest not in self._offered:
            self._offered[tree.digest] = DirectorySource(tree)
            session = await self._stack.enter_async_context(self._client.session(id=session_id))
            session.directories = self.find
        place = tree.digest if made_here else str(root.resolve())
        part = json.dumps([place, list(include), list(exclude), gitignore])
        uploaded = llb.source(
            f"local://{SOURCE}",
            {
                "local.session": session_id,
                "local.sharedkeyhint": hashlib.sha256(part.encode()).hexdigest(),
                "local.excludepatterns": json.dumps([tree.digest]),
            },
            platform=self.platform,
            name=f"upload {shown or root}",
        )
        if not self._portable:
            return uploaded
        # BuildKit leaves what was sent by a session out of a remote cache; a copy of it is known by
        # its content alone.
        copy = FileActions(None).copy(uploaded, "/", "/", contents=True)
        return copy.done(platform=self.platform)
