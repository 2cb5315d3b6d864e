"""Where a worker leaves dead letters in tests without Kafka."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.errors import KafkaUnavailable
from tidemill.records import DeadLetterRecord


class KeptLetters:
    """Keeps letters in memory. `away`: how often it says first that Kafka does not answer."""

    def __init__(self, away: int = 0) -> None:
        self.kept: list[DeadLetterRecord] = []
        self.away = away

    async def send(self, letters: Sequence[DeadLetterRecord]) -> None:
        """Keep them, or raise KafkaUnavailable."""
        if self.away:
            self.away -= 1
            raise KafkaUnavailable("Kafka is away", mend="wait")
        self.kept += letters
