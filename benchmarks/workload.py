"""What `engine.py` measures: an ordinary `dagger-io` program, the same for every engine.

    buildonce run python benchmarks/workload.py BASE FOLDER ROUND > times.json

BASE is an image, or a folder that is a root file system. ROUND is `new` (execs that nobody has run
before) or `again` (those of the round before, in a new session). Times are seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import dagger
from dagger import dag

CHAIN = 50
SMALL, LARGE = 100, 1000  # nodes


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return round(time.perf_counter() - begin, 4)


def start(base: str) -> dagger.Container:
    if Path(base).is_dir():
        root = dag.container().with_rootfs(dag.host().directory(base))
        return root.with_env_variable("PATH", "/bin")
    return dag.container().from_(base)


def chain(container: dagger.Container, salt: str, length: int) -> dagger.Container:
    for number in range(length):
        container = container.with_exec(["sh", "-c", f"echo {salt} {number} > /step"])
    return container


async def together(container: dagger.Container, salt: str) -> None:
    async with anyio.create_task_group() as group:
        for number in range(CHAIN):
            one = container.with_exec(["echo", "apart", salt, str(number)])
            group.start_soon(one.stdout)


async def nodes(container: dagger.Container, salt: str, count: int) -> None:
    """A graph of `count` nodes: layers of files, ten side by side, each awaited by an ID."""
    directory = dag.directory()
    for number in range(count // 10):
        part = dag.directory()
        for file in range(9):
            part = part.with_new_file(f"f{file}", f"{salt} {number} {file}")
        directory = directory.with_directory(f"d{number}", part)
    await directory.entries()


async def large_file(container: dagger.Container, folder: Path) -> None:
    file = dag.host().directory(str(folder / "large")).file("200M")
    await container.with_file("/200M", file).file("/200M").export(str(folder / "out" / "200M"))


async def main(base: str, folder: Path, salt: str, fresh: bool) -> None:
    times: dict[str, float] = {}
    begin = time.perf_counter()
    async with dagger.connection():
        await dag.version()
        times["connect"] = round(time.perf_counter() - begin, 4)
        container = await start(base).sync()
        times["one exec"] = await timed(container.with_exec(["echo", salt]).stdout)
        times["50 dependent"] = await timed(chain(container, salt, CHAIN).sync)
        times["50 dependent, repeated"] = await timed(chain(container, salt, CHAIN).sync)
        times["50 independent"] = await timed(lambda: together(container, salt))
        times["50 independent, repeated"] = await timed(lambda: together(container, salt))
        many = dag.host().directory(str(folder / "many"))
        times["10,000 files"] = await timed(many.entries)
        (folder / "many" / "changed").write_text(salt + str(fresh))
        again = dag.host().directory(str(folder / "many"), no_cache=True)
        times["10,000 files, one changed"] = await timed(again.entries)
        small = await timed(lambda: nodes(container, salt, SMALL))
        large = await timed(lambda: nodes(container, salt, LARGE))
        times["100 nodes, a node"] = round(small / SMALL, 6)
        times["1,000 nodes, a node"] = round(large / LARGE, 6)
        times["200 MB in and out"] = await timed(lambda: large_file(container, folder))
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "new")
