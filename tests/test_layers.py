"""Imports go one way: what each part of `buildonce` may know of the others, and no circle anywhere.

The table is docs/architecture.md's picture. An import inside a function counts as any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"

LEAVES = {
    "errors",
    "interrupts",
    "loopback",
    "places",
    "predicates",
    "severity",
    "trust",
    "visible",
}
MAY_KNOW = {
    **{leaf: {"errors"} for leaf in LEAVES},
    "errors": set(),
    "ending": LEAVES,
    "ledger": LEAVES,
    "config": LEAVES,
    "toolchain": LEAVES,
    "dashboard": LEAVES | {"ledger"},  # what is in its image
    "engine": LEAVES | {"toolchain"},  # nothing of pipelines: they meet at Dagger's API
    "hooks": LEAVES | {"toolchain"},
    "advisories": LEAVES | {"config", "toolchain"},
    "stages": LEAVES | {"advisories"},  # of use in anyone's Dagger program
    "release": LEAVES | {"advisories", "config", "ledger", "toolchain"},
    "delivery": LEAVES | {"config", "ledger", "release", "toolchain"},
    "report": LEAVES | {"ledger", "release", "stages"},
    "pipeline": LEAVES
    | {"advisories", "config", "delivery", "ledger", "release", "report", "stages"},
    "cli": LEAVES | {"ending", "toolchain"},  # and by their names all that have commands
    "__main__": LEAVES | {"cli", "ending", "engine"},
}


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for file in (SOURCE / "buildonce").rglob("*.py"):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(file.read_text("utf-8"))
    return found


def imported(tree: ast.AST, known: dict[str, ast.Module], *, only_first: bool) -> Iterator[str]:
    """The modules of ours that a module imports; with `only_first` those that it needs to load."""
    for node in ast.iter_child_nodes(tree):
        later = ast.FunctionDef | ast.AsyncFunctionDef
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if only_first and (isinstance(node, later) or for_types):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module
        else:
            yield from imported(node, known, only_first=only_first)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_each_part_knows_only_those_below_it() -> None:
    known = modules()
    wrong = {
        f"{module} imports {other}"
        for module, tree in known.items()
        for other in imported(tree, known, only_first=False)
        if part(other) not in {"", part(module), *MAY_KNOW[part(module)]}
    }
    assert wrong == set()


def test_the_table_itself_has_no_circle_and_no_stranger() -> None:
    assert set(MAY_KNOW) == {part(module) for module in modules()} - {""}
    assert len(list(TopologicalSorter(MAY_KNOW).static_order())) == len(MAY_KNOW)


def test_no_modules_need_each_other_to_load() -> None:
    known = modules()
    # A package's own __init__ names its modules, which may name each other: not a circle.
    packages = {name.rpartition(".")[0] for name in known}
    graph = {
        module: {
            other
            for other in imported(tree, known, only_first=True)
            if other not in (module, *packages)
        }
        for module, tree in known.items()
        if module not in packages
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)
