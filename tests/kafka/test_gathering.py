"""How long the broker may gather records for a consumer that uses them in heaps."""

import pytest

from tidemill.kafka.client import GATHERING, REQUEST_TIMEOUT_MS, gathering


@pytest.mark.parametrize(("seconds", "wait_ms"), [(0.1, 500), (1, 500), (4, 1_000), (8, 2_000), (3_600, 2_000)])
def test_a_consumer_is_late_by_a_quarter_at_most(seconds: float, wait_ms: int) -> None:
    """Half a second as ever, longer where nobody looks sooner, and never so long that a request counts as lost; all else stays."""
    assert gathering(seconds) == {**GATHERING, "fetch_max_wait_ms": wait_ms}
    assert wait_ms < REQUEST_TIMEOUT_MS / 2
