"""What tests read of the logs of running services."""

from __future__ import annotations

import msgspec
from tests.logged import BUSY, faults, whole_lines


def test_a_line_that_is_being_written_is_none_yet() -> None:
    """Not even where it could be read so far; words of libraries between the lines are passed over."""
    assert whole_lines(b'{"a": 1}\nTraceback\n\n{"b": {"c": 2}}\n{"d": 3}') == [{"a": 1}, {"b": {"c": 2}}]
    assert whole_lines(b'{"a": {"b": 1}') == []
    assert whole_lines(b"") == []


def test_our_own_warnings_are_faults() -> None:
    """Those of a library, and what a busy machine does, are none."""
    lines = [
        {"level": "info", "module": "tidemill.x"}, {"level": "warning", "module": "tidemill_features.app", "reason": "torn"},
        {"level": "warning", "module": "tidemill.kafka.watch", "reason": BUSY}, {"level": "error", "module": "aiokafka.client"},
        {"level": "error", "module": "tidemill.redis"},
    ]  # fmt: skip
    assert faults(msgspec.json.decode(msgspec.json.encode(lines))) == [lines[1], lines[4]]
