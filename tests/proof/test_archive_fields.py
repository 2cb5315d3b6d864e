"""The audit of an archive whose events were archived before their fields were declared, by path, unit and default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.test_fields import AFTER, BEFORE, EVENTS, archived
from tests.archive.trips import NOW_MS, Sent

from tidemill import Event
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.proof.archive_audit import ArchiveReport, _Comparison, _differing


def rows(declared: Event, event: dict[str, Any]) -> list[dict[str, Any]]:
    """The row of an event, as a writer made it by a declaration."""
    table = event_table(Project("p", {"seen": declared}, {}), declared)
    found: list[dict[str, Any]] = table.rows(0, [Sent(0, json.dumps(event).encode(), NOW_MS)]).to_pylist()
    return found


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.booleans())
def test_an_event_is_the_same_wherever_its_fields_lie(event: dict[str, Any], other: bool) -> None:
    """In columns or below them, with conversions and defaults; another value is another event."""
    today, then = rows(AFTER, event), rows(BEFORE, event | ({"plain": 77, "more": {"b": "other"}} if other else {}))
    if today and then:
        plain_is_same = event.get("plain") == 77
        assert _differing(AFTER, today[0], then[0]) == ([] if not other else ["_extra.more"] + ["plain"] * (not plain_is_same))


def test_a_compacted_topic_may_have_lost_what_the_archive_has(tmp_path: Path) -> None:
    """Kafka deletes an event when a newer one has its key; one that it still holds must be right, and on any other topic it is an error."""
    values = [json.dumps({"@timestamp": NOW_MS * 1000, "plain": n}).encode() for n in range(4)]
    store, table = archived(tmp_path, AFTER, values), event_table(Project("p", {"seen": AFTER}, {}), AFTER)
    left = [Sent(offset, value, NOW_MS) for offset, value in enumerate(values) if offset != 1]
    left[0] = Sent(0, values[1], NOW_MS)
    found = {}
    for compacted in (True, False):
        report = ArchiveReport()
        comparison = _Comparison(AFTER, table, store.snapshot("events/seen"), set(), 0, compacted)
        comparison.compare(TopicPartition("seen", 0), 0, 4, left, report)
        found[compacted] = report.examples
    assert found[True] == ["seen[0] at 0: differs in plain"]
    assert found[False][1:] == ["seen[0] at 1: the archive has an event where the topic has none that is accepted"]
