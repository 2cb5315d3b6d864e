"""A month of a few shops, made from a seed: late, doubled, invalid and poisoned events among good ones.

Amounts are quarters, so that sums are exact in any order. What is late is late by less than six hours, or by twelve days: no horizon is near.
Outcomes keep away from the deadline of their prediction by more than two steps, on either side.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgspec

START_MS = 1_704_067_200_000  # 2024-01-01
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
DAYS = 31
LAST_ORDER_DAY = 28
WITHIN_MS = 36 * HOUR_MS
TIMES = {"shop.ordered": "ordered_at", "shop.returned": "at", "shop.visited": "at"}
_CUSTOMERS, _SHOPS = 100, 20


class Sent(NamedTuple):
    """One publication: when it becomes known, of which event, its bytes, and its data; `reason`: why it must become a dead letter."""

    known_ms: int
    event: str
    value: bytes | None
    data: dict[str, Any]
    reason: str | None = None

    @property
    def time_ms(self) -> int:
        """When a good event happened."""
        time_ms: int = self.data[TIMES[self.event]]
        return time_ms


def recording(seed: int, events: int = 60_000) -> list[Sent]:
    """About so many publications in order of becoming known; the same for the same arguments."""
    maker = _Maker(random.Random(seed))
    for i in range(events * 15 // 100):
        maker.order(i)
    while len(maker.sent) < events:
        maker.visit(len(maker.sent))
    maker.closing()
    return sorted(maker.sent, key=lambda sent: sent.known_ms)


class _Maker:
    def __init__(self, random: random.Random) -> None:
        self.sent: list[Sent] = []
        self._random = random

    def order(self, i: int) -> None:
        """An order and what comes of it."""
        pick = self._random
        at_ms = START_MS + pick.randrange(LAST_ORDER_DAY * DAY_MS)
        shop, amount = pick.randrange(_SHOPS), pick.randrange(1, 200) / 4
        order = f"o{i}"
        data = {
            "event_id": f"e-{order}", "order": order, "customer": pick.randrange(_CUSTOMERS), "shop": f"s{shop}", "ordered_at": at_ms,
            "ask_at": at_ms + 2 * HOUR_MS, "amount": amount, "items": pick.randrange(1, 9),
        }  # fmt: skip
        self._publish("shop.ordered", at_ms + self._delay_ms(HOUR_MS), data)
        back = pick.random() < min(0.9, 0.1 + shop / 40 + amount / 100)
        kind = pick.random()
        if kind > 0.92:
            return  # nobody ever says what became of it
        since_ms = int(pick.uniform(2, 24) * HOUR_MS)
        if kind < 0.1:
            since_ms = int(pick.uniform(43, 54) * HOUR_MS)
        elif kind < 0.15:
            since_ms = -2 * HOUR_MS - 30 * MINUTE_MS  # it is known before the prediction is asked for
        known_ms = at_ms + 3 * HOUR_MS + since_ms
        self._return(order, shop, known_ms, back)
        if pick.random() < 0.03:
            self._return(order, shop, known_ms + int(pick.uniform(5, 9) * HOUR_MS), not back)  # the first one counts

    def _return(self, order: str, shop: int, known_ms: int, back: bool) -> None:
        refund = self._random.randrange(1, 80) / 4 if back else None
        data = {
            "event_id": f"r-{order}-{known_ms}", "order": order, "shop": f"s{shop}", "at": known_ms - self._random.randrange(MINUTE_MS),
            "back": back, "refund": refund,
        }  # fmt: skip
        self._publish("shop.returned", known_ms, data)

    def visit(self, i: int) -> None:
        """A visit, now and then something that is none."""
        pick = self._random
        known_ms = START_MS + pick.randrange((DAYS - 1) * DAY_MS)
        far = pick.random() < 0.01 and known_ms > START_MS + 14 * DAY_MS
        at_ms = known_ms - (12 * DAY_MS if far else self._delay_ms(6 * HOUR_MS))
        data = {"event_id": f"v{i}", "customer": pick.randrange(_CUSTOMERS), "at": at_ms, "seconds": pick.randrange(1, 2400) / 4}
        self._publish("shop.visited", known_ms, data)
        if pick.random() < 0.005:
            value, reason = self._spoiled(data, known_ms)
            self.sent.append(Sent(known_ms, "shop.visited", value, {}, reason))

    def _spoiled(self, data: dict[str, Any], known_ms: int) -> tuple[bytes | None, str]:
        encode = msgspec.json.encode
        good = encode(data)
        cases: list[tuple[bytes | None, str]] = [
            (None, "empty"),
            (b"\xff\x00\xfe", "not_json"),
            (good[:-3], "not_json"),
            (b"[" * 5_000, "not_object"),
            (encode([data]), "not_object"),
            (encode(data | {"seconds": "long"}), "wrong_type"),
            (encode(data | {"customer": None}), "wrong_type"),
            (encode(data | {"colour": "red"}), "unknown_field"),
            (encode({name: data[name] for name in data if name != "customer"}), "missing_field"),
            (good.replace(b'"seconds":', b'"seconds":NaN,"x":'), "not_finite"),
            (encode(data | {"customer": 10**30}), "out_of_range"),
            (encode(data | {"event_id": ""}), "bad_id"),
            (encode(data | {"at": -5}), "bad_time"),
            (encode(data | {"at": known_ms + 3 * HOUR_MS}), "future_time"),
        ]
        return self._random.choice(cases)

    def closing(self) -> None:
        """Outcomes nobody waits for, after every deadline: they let the join's clock pass."""
        for i in range(16):
            self._return(f"closing{i}", i, START_MS + DAYS * DAY_MS - HOUR_MS + i, back=False)

    def _publish(self, event: str, known_ms: int, data: dict[str, Any]) -> None:
        sent = Sent(known_ms, event, msgspec.json.encode(data), data)
        self.sent.append(sent)
        if self._random.random() < 0.015:  # a publisher that did not hear the acknowledgement
            self.sent.append(sent._replace(known_ms=known_ms + self._random.randrange(HOUR_MS)))

    def _delay_ms(self, most_ms: int) -> int:
        return self._random.randrange(MINUTE_MS, most_ms) if self._random.random() < 0.08 else self._random.randrange(2000)
