"""The traffic is what it says: numbered without a gap, and spoiled in ways that ingestion refuses for just these reasons."""

from __future__ import annotations

import random
import re
from collections import Counter

from tests.faults.logs import NOW_MS, PROJECT
from tests.faults.traffic import SHOWN_BYTES, Sender

from tidemill.declarations.project import load_project
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Refused
from tidemill.routing.uses import Uses

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
