"""The traffic is what it says: numbered without a gap, and spoiled in ways that ingestion refuses for just these reasons."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from tests.faults.logs import NOW_MS, PROJECT
from tests.faults.traffic import ENTITIES, REMEMBERED_IDS, SHOWN_BYTES, WAVE_SECONDS, Sender, Traffic

from tidemill.declarations.project import load_project
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Refused
from tidemill.routing.uses import Uses
from tidemill.runtime.settings import KafkaSettings

READER = EventReader(load_project(PROJECT).events["fault.measured"], Uses(["entity", "place"]))


class Careless(random.Random):
    """Spoils one event in thirty instead of one in ten thousand."""

    def random(self) -> float:
        """Numbers near one more often."""
        drawn = super().random()
        return 0.99995 if drawn > 0.97 else drawn


def test_a_wave_is_numbered_and_repeatable() -> None:
    """Every number once, but for the ones sent twice; the same seed gives the same bytes."""
    waves = [Sender(2, random.Random(5)).wave(5_000, NOW_MS) for _ in range(2)]
    assert waves[0] == waves[1]
    numbers = Counter(int(found[1]) for value in waves[0] if (found := re.match(rb'\{"id":"2-(\d+)"', value)))
    assert set(numbers) == set(range(5_000))
    assert 0 < sum(count - 1 for count in numbers.values()) < 30


@pytest.mark.parametrize(("rate", "waves"), [(400, 300), (600, 300), (4_000, 160)])
def test_a_wave_comes_again_while_its_ids_are_remembered(rate: int, waves: int) -> None:
    """At any rate: what is published again when an entity has had more events than its view remembers would rightly count twice."""
    assert load_project(PROJECT).views["entities"].last_ids == REMEMBERED_IDS
    senders = Traffic(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 1, rate).senders
    assert {sender.sent.maxlen for sender in senders} == {waves}
    assert waves * WAVE_SECONDS * rate / ENTITIES <= REMEMBERED_IDS / 2


def test_what_is_spoiled_is_refused_for_its_reason() -> None:
    """Exactly the spoiled events are refused, each for the reason that the sender noted; each can be told by its first bytes."""
    sender = Sender(0, Careless(3))
    found = {}
    for value in sender.wave(4_000, NOW_MS):
        try:
            READER.read(value, [], NOW_MS)
        except Refused as refused:
            found[value[:SHOWN_BYTES]] = refused.reason
    assert found == sender.spoiled
    assert len(sender.spoiled) == len(sender.spoiled_numbers)
    assert len(set(found.values())) == 9
