"""Writes `dagger.graphql`: every field that the Python clients of Dagger can ask for.

A client checks its queries against the schema that the server describes, before it sends them; a
field that is missing there fails inside the client with a message that helps nobody. So the schema
must name everything, served or not. The clients themselves are the best list of what they ask for:
this script reads the generated module of each `dagger-io` wheel (without importing it) and merges
them, the newest last and winning where two versions disagree about a type.

    pip download --no-deps -d wheels dagger-io==0.19.0      # and each other version
    python -m buildonce.engine.schema.generate wheels/*.whl > dagger.graphql

Descriptions are left out: the client reads the schema each time it connects.
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GENERATED_MODULE = "dagger/client/gen.py"
# Objects that there may be or not, which no client's module tells.
_PERHAPS = {("Container", "dockerHealthcheck")}
_BUILT_IN = {"str": "String", "int": "Int", "float": "Float", "bool": "Boolean"}
_INTERFACE_CLIENT = re.compile(r"_(\w+)Client")


@dataclass
class Argument:
    """One argument: its type in SDL and the SDL literal of its default, if it has one."""

    type: str
    default: str | None = None

    def render(self, name: str) -> str:
        default = "" if self.default is None else f" = {self.default}"
        return f"{name}: {self.type}{default}"


@dataclass
class Field:
    """One field of an object or interface."""

    type: str
    arguments: dict[str, Argument] = field(default_factory=dict)

    def render(self, name: str) -> str:
        arguments = ", ".join(a.render(n) for n, a in self.arguments.items())
        return f"  {name}({arguments}): {self.type}" if arguments else f"  {name}: {self.type}"


@dataclass
class Client:
    """What one or several versions of the client can ask for."""

    scalars: set[str] = field(default_factory=set)
    enums: dict[str, dict[str, str]] = field(default_factory=dict)  # enum -> member -> its value
    inputs: dict[str, dict[str, Argument]] = field(default_factory=dict)
    interfaces: dict[str, dict[str, Field]] = field(default_factory=dict)
    objects: dict[str, dict[str, Field]] = field(default_factory=dict)

    def merge(self, newer: Client) -> Client:
        """Both together, as a new value; `newer` wins where they disagree about a type."""
        merged = Client(
            scalars=self.scalars | newer.scalars,
            enums={**self.enums},
            inputs={**self.inputs, **newer.inputs},
            interfaces={**self.interfaces},
            objects={**self.objects},
        )
        for name, members in newer.enums.items():
            merged.enums[name] = {**merged.enums.get(name, {}), **members}
        for mine, theirs in (
            (merged.interfaces, newer.interfaces),
            (merged.objects, newer.objects),
        ):
            for name, fields in theirs.items():
                mine[name] = _merge_fields(mine.get(name, {}), fields)
        return merged


def _merge_fields(older: dict[str, Field], newer: dict[str, Field]) -> dict[str, Field]:
    merged = {**older}
    for name, new in newer.items():
        old = older.get(name)
        merged[name] = new if old is None else _merge_field(old, new)
    return merged


def _merge_field(old: Field, new: Field) -> Field:
    arguments = {}
    for name in [*new.arguments, *(a for a in old.arguments if a not in new.arguments)]:
        before, after = old.arguments.get(name), new.arguments.get(name)
        chosen = after or old.arguments[name]
        required_by_all = before is not None and after is not None and before.type.endswith("!")
        optional = not required_by_all and chosen.default is None
        type_ = chosen.type.removesuffix("!") if optional else chosen.type
        arguments[name] = Argument(type_, chosen.default)
    nullable = not old.type.endswith("!")
    return Field(new.type.removesuffix("!") if nullable else new.type, arguments)


class _Reader:
    """Reads one version's generated module."""

    def __init__(self, module: ast.Module) -> None:
        self.client = Client()
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in classes:
            match [ast.unparse(base) for base in node.bases]:
                case ["Scalar"]:
                    if not node.name.endswith("ID"):  # IDs are one scalar, `ID`
                        self.client.scalars.add(node.name)
                case ["Enum"]:
                    self.client.enums[node.name] = dict(_enum_members(node))
        for node in classes:
            match [ast.unparse(base) for base in node.bases]:
                case ["Input"]:
                    self.client.inputs[node.name] = dict(self._input_fields(node))
                case ["Root"]:
                    self.client.objects["Query"] = dict(self._fields(node))
                case ["Type"]:
                    interface = _INTERFACE_CLIENT.fullmatch(node.name)
                    if interface:
                        self.client.interfaces[interface[1]] = dict(self._fields(node))
                    else:
                        self.client.objects[node.name] = dict(self._fields(node))

    def _fields(self, owner: ast.ClassDef) -> Iterator[tuple[str, Field]]:
        for method in owner.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                found = self._field(method)
                if found:
                    yield found

    def _field(self, method: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, Field] | None:
        calls = [node for node in ast.walk(method) if isinstance(node, ast.Call)]
        selects = {_called(c): c for c in calls if _called(c) in ("self._select", "execute_sync")}
        if not selects:
            return None  # `with_`, `__await__` and the like ask for nothing
        if "execute_sync" in selects:
            name = _text(selects["execute_sync"].args[1])
            type_ = "ID!"
        else:
            name = _text(selects["self._select"].args[0])
            type_ = "ID!" if name == "id" else self._returned(method, calls)
        annotations = {a.arg: a.annotation for a in (*method.args.args, *method.args.kwonlyargs)}
        arguments = {}
        for call in calls:
            if _called(call) == "Arg":
                parameter = next(
                    n.id
                    for n in ast.walk(call.args[1])
                    if isinstance(n, ast.Name) and n.id in annotations
                )
                annotation = annotations[parameter]
                if annotation is None:
                    raise ValueError(f"{name}({parameter}) has no annotation")
                arguments[_text(call.args[0])] = self._argument(annotation, call.args[2:])
        return name, Field(type_, arguments)

    def _returned(self, method: ast.AST, calls: list[ast.Call]) -> str:
        for call in calls:
            match _called(call):
                case "_ctx.execute" if not call.args:
                    return "Void"
                case "_ctx.execute":
                    return self._type(call.args[0], output=True)
                case "_ctx.execute_object_list":
                    return f"[{self._type(call.args[0], output=True)}]!"
        returned = next(
            node.value
            for node in ast.walk(method)
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)
        )
        return self._type(returned.func, output=True)

    def _argument(self, annotation: ast.expr, default: Sequence[ast.expr]) -> Argument:
        type_ = self._type(annotation)
        if not default:
            return Argument(type_)
        literal = _literal(default[0])
        return Argument(type_.removesuffix("!"), literal)

    def _input_fields(self, node: ast.ClassDef) -> Iterator[tuple[str, Argument]]:
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):
                # These go over the wire under their Python names, without any conversion.
                default = [statement.value] if statement.value else []
                yield _name(statement.target), self._argument(statement.annotation, default)

    def _type(self, node: ast.expr, *, output: bool = False) -> str:
        """The SDL type of a Python annotation (or of an expression that names a class)."""
        match node:
            case ast.Constant(value=str(text)):
                return self._type(ast.parse(text, mode="eval").body, output=output)
            case ast.BinOp(op=ast.BitOr(), left=left, right=ast.Constant(value=None)):
                return self._type(left, output=output).removesuffix("!")
            case ast.Subscript(value=ast.Name(id="list"), slice=item):
                return f"[{self._type(item, output=output)}]!"
            case ast.Name(id=name):
                return f"{self._named(name, output=output)}!"
        raise ValueError(f"unknown annotation: {ast.unparse(node)}")

    def _named(self, name: str, *, output: bool) -> str:
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        if name in self.client.scalars or name in self.client.enums or name in self.client.inputs:
            return name
        interface = _INTERFACE_CLIENT.fullmatch(name)
        if output:
            return interface[1] if interface else name
        return "ID"  # objects are passed by their ID


def _called(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    return "execute_sync" if name.endswith("execute_sync") else name


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError(f"not a string: {ast.unparse(node)}")


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(f"not a name: {ast.unparse(node)}")


def _enum_members(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            yield _name(statement.targets[0]), _text(statement.value)


def _literal(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=bool(value)):
            return "true" if value else "false"
        case ast.Constant(value=str(value)):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case ast.Constant(value=int(value)):
            return str(value)
        case ast.List(elts=[]):
            return "[]"
        case ast.Attribute(value=ast.Name(), attr=member):  # an enum's member
            return member
        case ast.Call(func=ast.Name(), args=[argument]):  # Scalar("…")
            return _literal(argument)
    raise ValueError(f"unknown default: {ast.unparse(node)}")


def read_client(package: Path) -> Client:
    """Read one version: a wheel, or a folder that holds the unpacked package `dagger`."""
    if package.is_dir():
        source = (package / GENERATED_MODULE).read_text()
    else:
        with zipfile.ZipFile(package) as wheel:
            source = wheel.read(GENERATED_MODULE).decode()
    return _Reader(ast.parse(source)).client


def _version(package: Path) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", package.name)
    if not found:
        raise ValueError(f"{package.name}: the name has no version such as 0.21.11")
    return tuple(int(part) for part in found.groups())


def merge_clients(packages: Iterable[Path]) -> Client:
    """All versions together, oldest first."""
    merged = Client()
    for package in sorted(packages, key=_version):
        merged = merged.merge(read_client(package))
    for object_, name in _PERHAPS:
        perhaps = merged.objects.get(object_, {}).get(name)
        if perhaps is not None:
            perhaps.type = perhaps.type.removesuffix("!")
    return merged


def render(client: Client, origin: str) -> str:
    """The schema in SDL."""
    lines = [
        f"# Generated by buildonce.engine.schema.generate from {origin}; do not edit.",
        "",
        "directive @alias(of: String!) on ENUM_VALUE",
        "",
        *(f"scalar {name}" for name in sorted(client.scalars | {"Void"})),
        "",
    ]
    for name, members in sorted(client.enums.items()):
        lines.append(f"enum {name} {{")
        for member, value in members.items():
            lines.append(f"  {member}" if member == value else f'  {member} @alias(of: "{value}")')
        lines += ["}", ""]
    for name, inputs in sorted(client.inputs.items()):
        lines += [f"input {name} {{", *(f"  {a.render(n)}" for n, a in inputs.items()), "}", ""]
    for name, fields in sorted(client.interfaces.items()):
        parent = "" if name == "Node" else " implements Node"
        lines += [f"interface {name}{parent} {{", *_render_fields(fields), "}", ""]
    for name, fields in sorted(client.objects.items()):
        implemented = [i for i, wanted in client.interfaces.items() if _implements(fields, wanted)]
        parents = f" implements {' & '.join(sorted(implemented))}" if implemented else ""
        lines += [f"type {name}{parents} {{", *_render_fields(fields), "}", ""]
    return "\n".join(lines)


def _render_fields(fields: dict[str, Field]) -> list[str]:
    return [wanted.render(name) for name, wanted in sorted(fields.items())]


def _implements(fields: dict[str, Field], interface: dict[str, Field]) -> bool:
    return all(
        name in fields
        and fields[name].type == wanted.type
        and all(
            argument in fields[name].arguments
            and fields[name].arguments[argument].type == wanted.arguments[argument].type
            for argument in wanted.arguments
        )
        and all(
            not argument.type.endswith("!") or name_ in wanted.arguments
            for name_, argument in fields[name].arguments.items()
        )
        for name, wanted in interface.items()
    )


def main(arguments: Sequence[str]) -> int:
    packages = [Path(argument) for argument in arguments]
    if not packages:
        print(__doc__, file=sys.stderr)
        return 2
    versions = sorted(_version(package) for package in packages)
    origin = "dagger-io " + ", ".join(".".join(map(str, version)) for version in versions)
    sys.stdout.write(render(merge_clients(packages), origin))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
