"""Keys of several fields: the door, files, the archive, SQL and requests make the same text of them, and refuse the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.taking import Taker
from tidemill.archive.view_records import RecordMaker
from tidemill.archive.view_rows import entity_texts
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, DeclarationError
from tidemill.kernel.keys import asked_key, joined_key
from tidemill.models.inputs import ModelInputs
from tidemill.routing.router import Router
from tidemill.streams.topics import view_topic
from tidemill.testing import World
from tidemill.verify.entities import entity_sql, entity_text, parts_of
from tidemill.verify.expressions import SqlPart
from tidemill_serving.query import QueryParser

SALE = Event("sale", {"at": int, "shop": str, "till": int | None, "paid": float | None, "id": str}, time="at", id="id")
TILLS = FeatureView("tills", SALE, Entity("shop_till", field=["shop", "till"]), [count()])
MODEL = Model(
    "busy", SALE, subject="id", at="at", inputs=[TILLS, Request("paid", float)], outcome=Outcome(SALE, "paid > 1", subject="id", within="1h"), pipeline=object
)  # fmt: skip
PROJECT = Project("joined", {"sale": SALE}, {"tills": TILLS}, {})
TEXTS = st.text(min_size=1, max_size=6) | st.sampled_from(['"', "\\", '","', "a\x00b", "\x1f", "é€😀", "[]"])
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


def surrogate_free(pairs: list[tuple[str, str]]) -> bool:
    """Whether these texts are UTF-8."""
    return not any("\ud800" <= sign <= "\udfff" for pair in pairs for text in pair for sign in text)


@pytest.mark.slow
@given(PAIRS.filter(surrogate_free))
def test_one_text_wherever_it_is_made(pairs: list[tuple[str, str]]) -> None:
    """Routing, the archive, SQL and its second implementation agree, the parts can be read back, and other parts are another key."""
    texts = [joined_key(pair) for pair in pairs]
    assert entity_texts(("a", "b"), pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})).to_pylist() == texts
    assert [entity_text(("a", "b"), {"a": a, "b": b}) for a, b in pairs] == texts
    assert [tuple(parts_of(text, 2)) for text in texts] == pairs
    assert len({*texts}) == len({*pairs})
    rows = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs], "n": range(len(pairs))})
    with duckdb.connect() as db:
        db.register("pairs", rows)
        sql = entity_sql(("a", "b"), {"a": SqlPart("a", str), "b": SqlPart("b", str)})
        assert [key for (key,) in db.execute(f"SELECT {sql} FROM pairs ORDER BY n").fetchall()] == texts  # noqa: S608
    for text, pair in zip(texts, pairs, strict=True):
        if all(sign >= " " for part in pair for sign in part):
            assert text == json.dumps([*pair], ensure_ascii=False, separators=(",", ":"))


def test_whole_numbers_are_their_text() -> None:
    """7 and "7" are one key, as they are for a key of one field; null in one part is no key."""
    assert joined_key(("a", 7)) == joined_key(("a", "7")) == '["a","7"]'
    assert asked_key(("a", None)) is None
    assert entity_texts(("a", "b"), pa.table({"a": ["x", "x"], "b": pa.array([7, None])})).to_pylist() == ['["x","7"]', None]
    with pytest.raises(TypeError, match=r"1\.5 is not an entity"):
        joined_key(("a", 1.5))


def sale(**changed: Any) -> dict[str, Any]:
    """A sale."""
    return {"at": NOW_MS, "shop": "s", "till": 1, "paid": 2.0, "id": "1", **changed}


SALES = [
    sale(),
    sale(id="2", till=None),
    sale(id="3", shop="s" * 1020),
    sale(id="4", shop="s" * 1010),
    sale(id="5", shop='"' * 508),
    sale(id="6", shop='"' * 509),
    sale(id="7", shop="€" * 336),
    sale(id="8", shop="€" * 339),
]


def test_the_door_and_files_take_the_same_keys(tmp_path: Path) -> None:
    """A key that is too long when its parts are joined is refused by name, however it comes; one that just fits makes the same record."""
    router, key_of, refused = Router(PROJECT), dict[str, bytes](), set[str]()
    for number, data in enumerate(SALES):
        for record in router.route("sale", 0, number, NOW_MS, None, json.dumps(data).encode(), []):
            if record[0] == view_topic("joined", TILLS.log):
                key_of[data["id"]] = record[2] or b""
            else:
                assert b"bad_key" in record[3]
                assert b"shop and till may have 1 to 1024 bytes" in record[3]
                refused.add(data["id"])
    assert refused == {"3", "6", "8"}
    assert router.unkeyed == {view_topic("joined", TILLS.log): 1}
    pq.write_table(pa.Table.from_pylist(SALES), tmp_path / "sales.parquet")
    taker = Taker(PROJECT, SALE, FileRules(), None, "load:x", NOW_MS)
    (file,) = history_files([tmp_path / "sales.parquet"])
    taken = [taker.take(chunk) for chunk in file.chunks()]
    rows = pa.concat_tables([each.rows for each in taken])
    assert {(str(row.number + 1), row.reason) for each in taken for row in each.refused} == {(number, "bad_key") for number in refused}
    events = pa.table({
        "_time": pa.array([NOW_MS] * len(rows)), "_known": pa.array([NOW_MS] * len(rows)), "_id": rows["id"],
        "shop": rows["shop"], "till": rows["till"],
    })  # fmt: skip
    made = RecordMaker(TILLS).made(events)
    assert sorted(key or b"" for records in made.records.values() for key, _, _ in records) == sorted(key_of.values())
    assert made.unkeyed == 1


def test_requests_give_a_value_for_each_part() -> None:
    """Feature requests and predictions name the fields; a missing part is named, null in one is no entity."""
    parser = QueryParser(PROJECT)

    def keys(**entities: Any) -> list[list[bytes | None]]:
        return parser.parse(json.dumps({"features": ["tills:count"], "entities": entities}).encode(), NOW_MS).keys

    assert keys(shop=["s", "s"], till=[1, None]) == [[b'["s","1"]', None]]
    with pytest.raises(BadRequest, match=r"entities\.till is missing") as told:
        keys(shop=["s"])
    assert "shop, till" in told.value.mend
    with pytest.raises(BadRequest, match=r"entities\.shop, till\[0\]: \[\] is not an entity"):
        keys(shop=["s"], till=[[]])
    inputs = ModelInputs(MODEL, {})
    assert inputs.fields == ["shop", "till", "paid"]
    assert inputs.keys({"shop": "s", "till": 1, "paid": 1.0}) == [b'["s","1"]']
    assert inputs.keys({"shop": None, "till": 1, "paid": 1.0}) == [None]
    with pytest.raises(BadRequest, match=r"entities\.till: a whole number beyond 64 bits"):
        inputs.keys({"shop": "s", "till": 2**63, "paid": 1.0})


def test_features_by_the_parts() -> None:
    """A project's own tests ask with the parts."""
    world = World(PROJECT)
    for number, till in enumerate((1, 1, 2, None)):
        world.publish("sale", sale(id=str(number), till=till), at=NOW_MS)
    assert world.features("tills", ("s", 1))["count"].value == 2
    assert world.features("tills", '["s","2"]')["count"].value == 1
    assert world.features("tills", ("s", 3))["count"].status == "NOT_FOUND"


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        (["shop"], "are not several fields"),
        (["shop", "shop"], "are not several fields"),
        (["shop", "hall"], "has no field 'hall'"),
        (["shop", "paid"], "field 'paid' must be str or int"),
    ],
)
def test_declarations_that_cannot_be(field: list[str], cause: str) -> None:
    """One field in a list, one twice, one that is none or no key: refused, with the mend."""
    with pytest.raises(DeclarationError, match=cause) as told:
        FeatureView("v", SALE, Entity("e", field=field), [count()])
    assert told.value.mend
