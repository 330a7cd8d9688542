"""The embedded engine beside raw `buildctl`, which is its limit, and Dagger, where it is at hand.

    make benchmark                              # or: python benchmarks/engine.py [--image IMAGE]

All in one run on one machine, so that what is printed are ratios; none is asserted on, for the
machine may be busy. Dagger is measured when `dagger` is on the PATH (with
_EXPERIMENTAL_DAGGER_RUNNER_HOST where its engine is not in Docker). Times are seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.table import Table

from buildonce.engine import daemons, llb
from buildonce.engine.llb import Output
from buildonce.engine.machine import engine_options
from buildonce.toolchain import ensure

WORKLOAD = Path(__file__).with_name("workload.py")
CHAIN = 50
PLATFORM = "linux/amd64"


def prepare(folder: Path) -> Path:
    """The files that are measured, and a tiny root file system."""
    many = folder / "many"
    for number in range(100):
        (many / f"d{number}").mkdir(parents=True)
        for file in range(100):
            (many / f"d{number}" / f"f{file}").write_text(f"{number} {file}")
    (folder / "large").mkdir()
    with (folder / "large" / "200M").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    root = folder / "rootfs"
    (root / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("this benchmark needs a static busybox: apt-get install busybox-static")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in ("sh", "echo"):
        (root / "bin" / applet).symlink_to("busybox")
    return root


def measured(command: list[str], arguments: list[str]) -> tuple[dict[str, float], float]:
    """The workload's times under `command`, and how long the whole took."""
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, sys.executable, str(WORKLOAD), *arguments],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    times: dict[str, float] = json.loads(done.stdout)
    return times, time.perf_counter() - begin


def execution(root: Output, args: list[str]) -> Output:
    op = llb.new_op(PLATFORM)
    op.exec.meta.args.extend(args)
    op.exec.meta.env.append("PATH=/usr/bin:/bin")
    op.exec.meta.cwd = "/"
    op.exec.mounts.add(input=0, dest="/", output=0)
    return Output(llb.vertex(op, [root]))


def together(layers: list[Output]) -> Output:
    op = llb.new_op(PLATFORM)
    for number in range(len(layers)):
        op.merge.inputs.add(input=number)
    return Output(llb.vertex(op, layers))


def raw(buildctl: str, address: str, root: Output, local: list[str], salt: str) -> dict[str, float]:
    """The same execs as plain graphs, one `buildctl` call each; nothing captures their output."""

    def solve(output: Output) -> float:
        begin = time.perf_counter()
        subprocess.run(
            [buildctl, "--addr", address, "build", *local],
            input=llb.marshal(output).SerializeToString(),
            check=True,
            capture_output=True,
        )
        return round(time.perf_counter() - begin, 4)

    solve(execution(root, ["echo", "warm", salt]))
    last = root
    for number in range(CHAIN):
        last = execution(last, ["sh", "-c", f"echo raw {salt} {number} > /step"])
    apart = together(
        [execution(root, ["sh", "-c", f"echo raw {salt} {n} > /n{n}"]) for n in range(CHAIN)]
    )
    return {
        "one exec": solve(execution(root, ["echo", "raw", salt])),
        "50 dependent": solve(last),
        "50 dependent, repeated": solve(last),
        "50 independent": solve(apart),
        "50 independent, repeated": solve(apart),
    }


async def measure(image: str | None) -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = {"tiny": str(prepare(folder))}
        if image:
            bases["Debian"] = image
        options = await engine_options(os.environ)
        buildctl = str((await ensure("buildctl")).path)
        async with daemons.find_or_start(options) as daemon:
            for label, base in bases.items():
                salt = uuid.uuid4().hex
                # One run that is not counted: byte code, the base, kept introspection.
                measured(
                    [
                        str(Path(sys.executable).with_name("buildonce")),
                        "run",
                        "--progress",
                        "quiet",
                    ],
                    [base, name, salt + "w", "new"],
                )
                columns: dict[str, dict[str, float]] = {}
                if Path(base).is_dir():
                    attributes = {"local.sharedkeyhint": "benchmark"}
                    root = llb.source("local://rootfs", attributes, platform=PLATFORM)
                    local = ["--local", f"rootfs={base}"]
                else:
                    root, local = llb.source(f"docker-image://{base}", platform=PLATFORM), []
                columns["buildctl"] = raw(buildctl, daemon.address, root, local, salt)
                engines = {
                    "embedded": [
                        str(Path(sys.executable).with_name("buildonce")),
                        "run",
                        "--progress",
                        "quiet",
                    ]
                }
                if shutil.which("dagger"):
                    engines["Dagger"] = ["dagger", "run", "--silent"]
                for engine, command in engines.items():
                    columns[engine], whole = measured(command, [base, name, salt, "new"])
                    columns[engine]["whole run, new"] = round(whole, 3)
                    second, whole = measured(command, [base, name, salt, "again"])
                    columns[f"{engine}, new session"] = second
                    second["whole run, new"] = round(whole, 3)
                console.print(table(label, columns))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    console.print(f"peak memory of any one process started here: {peak} MiB")


def table(label: str, columns: dict[str, dict[str, float]]) -> Table:
    """Times, and their ratio to raw buildctl where it was measured."""
    shown = Table(title=f"{label} base; seconds (ratio to buildctl)")
    shown.add_column("")
    for name in columns:
        shown.add_column(name, justify="right")
    rows = list(columns["embedded"])
    for row in rows:
        limit = columns["buildctl"].get(row)
        cells = []
        for name, times in columns.items():
            value = times.get(row)
            ratio = f" ({value / limit:.2f}x)" if value and limit and name != "buildctl" else ""
            cells.append("" if value is None else f"{value:.4f}{ratio}")
        shown.add_row(row, *cells)
    return shown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--image", help="a second base, such as 127.0.0.1:5080/base/python:bookworm"
    )
    asyncio.run(measure(parser.parse_args().image))
