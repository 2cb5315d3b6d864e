"""Alerts as operators see them."""

from __future__ import annotations

import msgspec
import pytest
from tests.demo_state import demo

from tidemill.kafka.topics import ensure_topics
from tidemill.records import AlertRecord, JudgementRecord, NoteRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alert_board import UNSEEN, episodes_of, muted_by, not_judged, standing
from tidemill.streams.notes import append_note, read_notes
from tidemill.streams.topics import notes_topic

OPENED = AlertRecord("a", "m", "1", "feature_drift", "x", "opened", 0, 10, "z", 1.0, 1.0, 0.3, 300, "moved", source="drift")
CLOSED = msgspec.structs.replace(OPENED, id="b", state="closed", start=10, end=20)


def test_an_episode_goes_from_its_opening_to_its_closing() -> None:
    """One that opens again is another; other versions and subjects have their own."""
    again, other = msgspec.structs.replace(OPENED, id="c", end=30), msgspec.structs.replace(OPENED, id="d", version="2")
    first, second, third = episodes_of([OPENED, CLOSED, again, other], [], 0)
    assert [one.is_open for one in (first, second, third)] == [False, True, True]
    assert (first.opened, first.newest, second.opened, third.opened) == (OPENED, CLOSED, again, other)


def test_an_episode_ends_whatever_test_saw_it() -> None:
    """Of few rows values are counted, of many there is a chi-square: both are about the same input. Texts never seen are an episode of their own."""
    counted = msgspec.structs.replace(OPENED, test="exact counts and PSI")
    over = msgspec.structs.replace(CLOSED, test="chi-square and PSI")
    (only,) = episodes_of([counted, over], [], 0)
    assert (only.opened, only.newest, only.is_open) == (counted, over, False)
    assert standing([counted, over]) == []
    missing, unseen = msgspec.structs.replace(OPENED, test="share missing"), msgspec.structs.replace(OPENED, id="u", test=UNSEEN)
    assert standing([missing, unseen, msgspec.structs.replace(CLOSED, test="share missing")]) == [unseen]
    assert len(episodes_of([missing, unseen], [], 0)) == 2


def test_what_stands_may_be_added_to() -> None:
    """What stood before and what came since give what all alerts give; the audit's tests of one partition are episodes of their own."""
    audited = [
        msgspec.structs.replace(OPENED, id=test, model="", version="", view="v", partition=0, test=test, source="audit")
        for test in ("a", "b")
    ]
    alerts = [
        OPENED,
        *audited,
        CLOSED,
        msgspec.structs.replace(OPENED, id="e"),
        msgspec.structs.replace(audited[0], id="f", state="closed"),
    ]
    assert [alert.id for alert in standing(alerts)] == ["b", "e"]
    for cut in range(len(alerts)):
        assert standing([*standing(alerts[:cut]), *alerts[cut:]]) == standing(alerts)


def test_an_acknowledgement_is_of_one_episode() -> None:
    """It names any alert of it; the next episode is not known yet."""
    again = msgspec.structs.replace(OPENED, id="c", end=30)
    note = NoteRecord("ack", 5, "ada", "a")
    first, second = episodes_of([OPENED, CLOSED, again], [note], 0)
    assert (first.acknowledged, second.acknowledged) == (note, None)


@pytest.mark.parametrize(
    ("note", "muted"),
    [
        (NoteRecord("mute", 0, model="m", subject="x", until=100), True),
        (NoteRecord("mute", 0, model="m"), True),
        (NoteRecord("mute", 0), True),
        (NoteRecord("mute", 0, model="m", subject="y"), False),
        (NoteRecord("mute", 0, model="n"), False),
        (NoteRecord("mute", 0, model="m", until=50), False),
        (NoteRecord("ack", 0, alert="a"), False),
    ],
)
def test_what_is_muted(note: NoteRecord, muted: bool) -> None:
    """A mute is of a model, of a subject, or of all, and ends at its moment; the newest note of the same counts."""
    assert (muted_by(OPENED, [note], 50) is note) == muted
    ended = msgspec.structs.replace(note, kind="unmute")
    assert muted_by(OPENED, [note, ended], 50) is None
    assert [one.muted for one in episodes_of([OPENED], [note], 50)] == [note if muted else None]


def test_what_was_not_judged() -> None:
    """Of each version and thing watched the newest judgement, but for versions that serve no more."""
    waits = JudgementRecord("m", "1", "inputs", 0, 10, 120, "waiting", "120 of 200 rows")
    judged = JudgementRecord("m", "1", "inputs", 0, 20, 300, "judged")
    ranking = JudgementRecord("m", "1", "ranking", 0, 10, 300, "waiting", "2 of 10 rows with the rarer outcome")
    gone = JudgementRecord("m", "0", "inputs", 0, 10, 300, "skipped", "superseded by 1")
    assert not_judged([waits, gone, ranking]) == [waits, ranking]
    assert not_judged([waits, judged]) == []


@pytest.mark.integration
async def test_notes_are_read_as_they_were_written(kafka: str, topic_prefix: str) -> None:
    """In order; a project without any has none."""
    settings, topic = KafkaSettings(bootstrap_servers=kafka), notes_topic(topic_prefix)
    assert await read_notes(settings, topic_prefix) == []
    from dataclasses import replace

    from tidemill.streams.topics import topic_specs

    await ensure_topics(settings, {topic: topic_specs(replace(demo(), name=topic_prefix))[topic]})
    notes = [NoteRecord("ack", 1, "ada", "a", "m"), NoteRecord("mute", 2, "ada", model="m", until=9, reason="known")]
    for note in notes:
        await append_note(settings, topic_prefix, note)
    assert await read_notes(settings, topic_prefix) == notes
