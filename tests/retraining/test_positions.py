"""Reading the answers and outcomes of a step from live topics."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.beside import beside
from tests.patience import PATIENCE_SECONDS
from tests.retraining.made import became
from tests.retraining.rig import PROJECT

from tidemill.declarations.project import load_project
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.records import ResultRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import results_topic, topic_specs
from tidemill_retraining.positions import StepReading

pytestmark = pytest.mark.integration


async def test_reading_ends_although_there_is_always_more(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """Outcomes come without a pause, as of any application with traffic: what was there is read, and then it can be judged; the rest is read the next time, each once."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix))
    settings, written = KafkaSettings(bootstrap_servers=kafka), 0
    await ensure_topics(settings, topic_specs(load_project(tmp_path)))

    async def traffic() -> None:
        nonlocal written
        async with started_producer(settings) as made:
            while True:
                await send_wave(made, {(results_topic(topic_prefix), 0): [(None, encode(became(f"r{written}", "v1", 0.5, 1.0)), [])]})
                written += 1

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        beside(traffic()),
        StepReading(settings, topic_prefix, {"results": [0]}, ("results",)) as reading,
    ):
        names = list[str]()
        for _ in range(3):
            before = written
            async for records in reading.news():
                names += [record.prediction for record in records if isinstance(record, ResultRecord)]
            assert len(names) >= before
    assert names == [f"r{place}" for place in range(len(names))]
