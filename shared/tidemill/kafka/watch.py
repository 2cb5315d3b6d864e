"""A client of Kafka gets no answer: is Kafka away (wait), or is the client stuck (end the process)?"""

from __future__ import annotations

from collections.abc import Callable

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.admin import wait_for_kafka
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse


async def unanswered(kafka: KafkaSettings, report: Callable[[str], None], pulse: Pulse, deadline_seconds: float) -> None:
    """Reports why a client got no answer. The pulse beats only if a new connection gets no answer either: then waiting is right."""
    try:
        await wait_for_kafka(kafka, deadline_seconds)
    except KafkaUnavailable as error:
        report(str(error))
        pulse.beat()
    else:
        report("Kafka answers, but not this client")
