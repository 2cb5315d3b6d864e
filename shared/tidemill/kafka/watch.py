"""When a client of Kafka gets no answer: is Kafka away, which is to be waited for, or is the client stuck, which is to be ended?"""

from __future__ import annotations

from collections.abc import Callable

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.admin import wait_for_kafka
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse


async def unanswered(kafka: KafkaSettings, report: Callable[[str], None], pulse: Pulse, deadline_seconds: float) -> None:
    """Reports why a client got no answer. Only when a new connection gets none either is waiting a sign of life."""
    try:
        await wait_for_kafka(kafka, deadline_seconds)
    except KafkaUnavailable as error:
        report(str(error))
        pulse.beat()
    else:
        report("Kafka answers, but not this client")
