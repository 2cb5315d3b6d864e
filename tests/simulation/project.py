"""The view that simulated workers fold: counts, float sums, lists and sets of values, with everything that makes a fold skip a record."""

from __future__ import annotations

import random

from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregates import count, sum
from tidemill.declarations.distinct import distinct
from tidemill.declarations.last_k import last_k
from tidemill.declarations.project import Project
from tidemill.kernel.fold import entry_decoder
from tidemill.kernel.view import ViewKernel
from tidemill.records import ViewRecord, encode
from tidemill.streams.topics import view_topic

PARTITIONS = 2
PAID = Event("paid", {"at": int, "card": str, "amount": float}, time="at")
VIEW = FeatureView(
    "by_card",
    PAID,
    "card",
    [count(), sum("amount"), last_k("amount", 2), distinct("amount")],
    windows=["1h"],
    dedupe=2,
    partitions=PARTITIONS,
)
PROJECT = Project("sim", {"paid": PAID}, {"by_card": VIEW})
KERNEL, DECODE = ViewKernel(VIEW), entry_decoder(VIEW)
TOPIC = view_topic(PROJECT.name, VIEW.log)
ENTITIES = [b"a", b"b", b"c", b"d"]


def record(offset: int, draw: random.Random) -> tuple[bytes, bytes]:
    """Key and value of a record: now and then a duplicate, one sent twice, one out of order, or one that cannot be read."""
    chance = draw.random()
    key = ENTITIES[int(4 * draw.random())]
    if chance < 0.02:
        return key, b"{%d" % draw.getrandbits(48)  # no two are alike: a record proves its log
    source = offset - 1 if chance < 0.05 and offset else offset
    minute = offset * 4 - (int(90 * draw.random()) if chance > 0.85 else 0)
    number = int(3 * draw.random()) if chance > 0.9 else offset
    return key, encode(ViewRecord(60_000 * minute, 0, (0, source), {"amount": draw.random()}, f"e{number}"))
