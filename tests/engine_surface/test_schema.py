"""The schema names all that the clients ask for, and is answered to introspection fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagger
import pytest
from graphql import (
    build_client_schema,
    build_schema,
    get_introspection_query,
    graphql_sync,
    validate_schema,
)

from buildonce.engine.schema import generate, introspection, load, text
from tests.oldest import oldest_client

EVERY_METHOD = Path(__file__).with_name("every_method.py")


def call_every_method(environment: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, str(EVERY_METHOD)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def test_the_installed_client_can_ask_for_everything_it_knows() -> None:
    assert call_every_method({}) > 1_000


@pytest.mark.e2e
def test_the_oldest_client_can_ask_for_everything_it_knows() -> None:
    assert call_every_method({"PYTHONPATH": str(oldest_client())}) > 700


def test_the_schema_is_valid() -> None:
    assert validate_schema(build_schema(text.sdl())) == []


def test_the_file_is_what_the_generator_makes_of_the_installed_client() -> None:
    package = Path(dagger.__file__).parents[1]
    installed = generate.read_client(package)
    written = build_schema(text.sdl())
    for name, fields in installed.objects.items():
        for field, wanted in fields.items():
            found = written.type_map[name].fields[field]  # type: ignore[attr-defined]
            perhaps = (name, field) in generate._PERHAPS
            assert str(found.type) == wanted.type.rstrip("!" * perhaps), f"{name}.{field}"
            assert set(wanted.arguments) <= set(found.args), f"{name}.{field}"


def test_enums_stand_for_one_value_under_all_their_names() -> None:
    compression = load().type_map["ImageLayerCompression"]
    assert compression.parse_value("GZIP") == compression.parse_value("Gzip") == "Gzip"
    assert compression.serialize("Gzip") == "Gzip"


def test_sizes_may_be_larger_than_32_bits() -> None:
    schema = load()
    schema.type_map["Query"].fields["file"].resolve = lambda *_, **__: {"size": 5 << 30}
    answer = graphql_sync(schema, '{file(name:"a",contents:""){size}}')
    assert answer.errors is None
    assert answer.data == {"file": {"size": 5 << 30}}


def test_the_answer_to_introspection_describes_the_schema(tmp_path: Path) -> None:
    kept = introspection.KeptAnswers(tmp_path)
    answer = json.loads(kept.compute(get_introspection_query(), None))
    described = build_client_schema(answer["data"])
    assert set(described.type_map) == set(build_schema(text.sdl()).type_map)


def test_the_answer_is_kept_for_later_processes(tmp_path: Path) -> None:
    query = get_introspection_query()
    assert introspection.KeptAnswers(tmp_path).find(query) is None
    computed = introspection.KeptAnswers(tmp_path).compute(query, None)
    assert introspection.KeptAnswers(tmp_path).find(query) == computed
    assert introspection.KeptAnswers(tmp_path).find(query + " ") is None


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = introspection.KeptAnswers(tmp_path / "file" / "below")
    query = get_introspection_query()
    assert kept.compute(query, None) == kept.find(query)


def test_kept_answers_do_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "_MOST_KEPT", 5)
    for number in range(8):
        kept = introspection.KeptAnswers(tmp_path)
        kept.compute(f"query q{number} {{__schema{{__typename}}}}", None)
    assert len(list(tmp_path.iterdir())) == 5


def test_mistakes_and_hungry_questions_are_answered_as_errors(tmp_path: Path) -> None:
    kept = introspection.KeptAnswers(tmp_path)
    assert "errors" in json.loads(kept.compute("{__schema{nonsense}}", None))
    deep = "{__schema{types" + "{fields{type" * 6 + "{name}" + "}}" * 6 + "}}"
    assert "errors" in json.loads(kept.compute(deep, None))
    assert list(tmp_path.iterdir()) == []


def test_defaults_of_optional_arguments_reach_resolvers() -> None:
    seen: list[dict[str, object]] = []
    schema = load()
    schema.type_map["Query"].fields["container"].resolve = lambda *_, **args: args
    schema.type_map["Container"].fields["withExec"].resolve = lambda *_, **args: (
        seen.append(args) or {"stdout": "ok"}
    )
    graphql_sync(schema, '{container{withExec(args:["true"]){stdout}}}')
    assert seen[0]["expect"] == "SUCCESS"
    assert seen[0]["stdin"] == ""
    assert seen[0]["useEntrypoint"] is False
