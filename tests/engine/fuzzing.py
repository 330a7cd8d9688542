"""Random chains of the schema's fields, sent to the session that this program runs in.

    BUILDONCE_FUZZ=10000 buildonce run python -m tests.engine.fuzzing     # 100 s

Fields that would touch the machine, its cache or the internet are left out. It prints how many
were sent.
"""

from __future__ import annotations

import json
import os
from typing import Any

from graphql import GraphQLNonNull, get_named_type, is_leaf_type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine_surface.test_fuzz import SCHEMA, Endpoint, literal

SECRET = "hunter2-hunter2"
LEFT_OUT = set(
    [
        "host",
        "git",
        "http",
        "secret",
        "export",
        "publish",
        "exportImage",
        "up",
        "terminal",
        "from",
        "plaintext",
        "prune",
    ]
)
FILE = 'withNewFile(path:"a/b",contents:"x")'
STARTS: list[tuple[str, list[str]]] = [
    ("Query", []),
    ("Container", ["container"]),
    ("Directory", ["directory", FILE]),
    ("File", ["directory", FILE, 'file(path:"a/b")']),
    ("Secret", [f'setSecret(name:"t",plaintext:"{SECRET}")']),
    ("CacheVolume", ['cacheVolume(key:"k")']),
]


@st.composite
def chains(draw: Any) -> str:
    name, before = draw(st.sampled_from(STARTS))
    parts = list(before)
    kind: Any = SCHEMA.type_map[name]
    for _ in range(draw(st.integers(1, 6))):
        fields = [item for item in sorted(kind.fields.items()) if item[0] not in LEFT_OUT]
        field_name, field = draw(st.sampled_from(fields))
        args = [
            f"{key}:{literal(argument.type, draw)}"
            for key, argument in field.args.items()
            if isinstance(argument.type, GraphQLNonNull) or draw(st.booleans())
        ]
        parts.append(f"{field_name}({','.join(args)})" if args else field_name)
        kind = get_named_type(field.type)
        if is_leaf_type(kind):
            break
    if not is_leaf_type(kind):
        parts.append("__typename")
    return "{" + "{".join(parts) + "}" * len(parts)


def main() -> None:
    endpoint = Endpoint(int(os.environ["DAGGER_SESSION_PORT"]), os.environ["DAGGER_SESSION_TOKEN"])
    sent = 0

    @settings(
        max_examples=int(os.environ.get("BUILDONCE_FUZZ", "150")),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(chains())
    def ask(query: str) -> None:
        nonlocal sent
        sent += 1
        try:
            answer = json.dumps(endpoint.query(query.encode("utf-8", "replace").decode()))
        except OSError as error:
            raise AssertionError(f"no answer to {query!r}") from error
        assert "internal error" not in answer, answer
        assert SECRET not in answer

    ask()
    endpoint.works()
    print(sent)


if __name__ == "__main__":
    main()
