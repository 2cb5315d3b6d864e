"""The schemas themselves, their examples, and the table that lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from tests.contract.payloads import NAMES, PROJECT, READERS, RECORDS, SCHEMAS, TEXT_REFUSED, examples, label, schema, validator

from tidemill import records
from tidemill.names import log_name
from tidemill.online.keys import fence_key
from tidemill.streams import topics

README = (SCHEMAS / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one(name: str) -> None:
    """Each file is valid JSON Schema 2020-12 under its own name."""
    assert schema(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema(name)["$id"] == f"urn:tidemill:{name}:v1"
    jsonschema.Draft202012Validator.check_schema(schema(name))


def fields_below(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a schema names, however deep."""
    if isinstance(part, dict):
        for name, content in part.get("properties", {}).items():
            if isinstance(content, dict):  # false: the field may not be there
                yield f"{path}.{name}", content
        for name, content in part.items():
            yield from fields_below(content, f"{path}.{name}")
    elif isinstance(part, list):
        for content in part:
            yield from fields_below(content, path)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_described(name: str) -> None:
    """Each field says what it is; a bare pair of conditions in a oneOf needs no words."""
    described = {path for path, content in fields_below(schema(name)) if "description" in content}
    bare = {path for path, content in fields_below(schema(name)) if path not in described and "oneOf" not in path and "anyOf" not in path}
    assert schema(name)["description"]
    assert described
    assert bare == set()


@pytest.mark.parametrize("name", NAMES)
def test_there_are_examples(name: str) -> None:
    """At least one valid example and two invalid ones, and no file of another kind."""
    files = {path.name for path in (SCHEMAS / "examples" / f"{name}.v1").iterdir()}
    assert sum(file.startswith("valid-") for file in files) >= 1
    assert sum(file.startswith("invalid-") for file in files) >= 2
    assert all(re.fullmatch(r"(in)?valid-[a-z0-9-]+\.json", file) for file in files)


def test_no_examples_without_a_schema() -> None:
    """Every folder of examples belongs to a schema."""
    assert {path.name for path in (SCHEMAS / "examples").iterdir()} == {f"{name}.v1" for name in NAMES}


@pytest.mark.parametrize(("name", "path"), examples("valid"), ids=label)
def test_a_valid_example_is_accepted_by_both(name: str, path: Path) -> None:
    """The schema accepts it, the code reads it, and a record writes it back as it was."""
    data = path.read_bytes()
    validator(name).validate(msgspec.json.decode(data))
    if name in READERS:
        record = READERS[name](data)
        if isinstance(record, records.Record):
            assert msgspec.json.decode(records.encode(record)) == msgspec.json.decode(data)


@pytest.mark.parametrize(("name", "path"), examples("invalid"), ids=label)
def test_an_invalid_example_is_refused_by_both(name: str, path: Path) -> None:
    """Neither the schema nor the code takes it."""
    data = path.read_bytes()
    assert not validator(name).is_valid(msgspec.json.decode(data))
    if name in READERS:
        with pytest.raises(TEXT_REFUSED):
            READERS[name](data)


def test_records_and_schemas_are_the_same_set() -> None:
    """Each message in records.py has a schema; what has a schema and no record is read by other code or only sent to clients."""
    assert set(RECORDS) <= set(NAMES)
    answers = {"error", "events_response", "predict_response", "get_online_features_response"}
    assert set(NAMES) == set(READERS) | answers


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_schema_and_its_record_have_the_same_fields(name: str) -> None:
    """Same names in the same order, the same ones required, and unknown ones refused by both."""
    fields = msgspec.structs.fields(RECORDS[name])
    assert list(schema(name)["properties"]) == [field.encode_name for field in fields]
    assert schema(name)["required"] == [field.encode_name for field in fields if field.required]
    assert schema(name)["additionalProperties"] is False


def test_the_table_lists_every_payload_and_topic() -> None:
    """The README has one row per schema, and the topics and keys are those that the code makes."""
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \| ([^|]+) \|", README, re.MULTILINE)}
    assert sorted(rows) == NAMES
    written = {topic for row in rows.values() for topic in re.findall(r"topic `([^`]+)`", row)}
    made = {name.replace("shop.", "<project>.", 1) for name in topics.topic_specs(PROJECT) if name not in PROJECT.events}
    assert {re.sub(r"(?<=\.view\.)\w+\.p\d+", "<view>.p<partitions>", name) for name in made} == written
    assert "fence{<48-bit hash of project, log and partition>}" in rows["fence"]
    assert re.fullmatch(rb"fence\{[\w-]{8}\}", fence_key("<project>", log_name("<view>", 4), 0))
