"""The topic of the catalogue, on a real Kafka."""

from __future__ import annotations

import asyncio

import pytest

from tidemill.catalogue.definitions import NOTHING, Definitions
from tidemill.declarations.written import WrittenEvent, WrittenModel, WrittenOutcome
from tidemill.errors import CatalogueChanged, TidemillError
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import Catalogue, append_definitions, read_definitions, read_history
from tidemill.streams.topics import catalogue_topic

pytestmark = pytest.mark.integration


@pytest.fixture
async def settings(kafka: str, topic_prefix: str) -> KafkaSettings:
    """A Kafka with the catalogue's topic of the project `topic_prefix`."""
    made = KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(made, {catalogue_topic(topic_prefix): TopicSpec(1, {"cleanup.policy": "delete"})})
    return made


async def test_who_follows_sees_each_change(settings: KafkaSettings, topic_prefix: str) -> None:
    """What was there before, then each change; nothing while nothing changes."""
    first, second = Definitions(1, 5, in_force={"a": 1}), Definitions(2, 6, in_force={"a": 2})
    assert await read_definitions(settings, topic_prefix) is NOTHING
    await append_definitions(settings, topic_prefix, first)
    async with Catalogue(settings, topic_prefix) as catalogue:
        assert catalogue.now == first
        assert not await catalogue.changed()
        await append_definitions(settings, topic_prefix, second)
        assert await catalogue.changed()
        assert catalogue.now == second == await read_definitions(settings, topic_prefix)


async def test_of_two_who_change_at_once_one_is_told(settings: KafkaSettings, topic_prefix: str) -> None:
    """Both begin from the same catalogue: one change counts, whoever made the other one knows, and everybody reads the same."""
    changes = [Definitions(1, time, in_force={"a": time}) for time in range(5)]
    ended = await asyncio.gather(*(append_definitions(settings, topic_prefix, change) for change in changes), return_exceptions=True)
    (won,) = [change for change, end in zip(changes, ended, strict=True) if end is None]
    assert all(isinstance(end, CatalogueChanged) for end in ended if end is not None)
    assert await read_definitions(settings, topic_prefix) == won
    async with Catalogue(settings, topic_prefix) as catalogue:
        assert catalogue.now == won
    assert await read_history(settings, topic_prefix) == [won]


@pytest.mark.parametrize("absent", [True, float("nan"), "0"])
async def test_what_nobody_could_read_is_not_written(settings: KafkaSettings, topic_prefix: str, absent: object) -> None:
    """Such a record would stop all commands and services for good; the catalogue stays as it was."""
    event = WrittenEvent("e", {"who": "str", "at": "int", "good": "bool"}, "at", "e", 1)
    model = WrittenModel("m", "e", "at", "who", (), WrittenOutcome("e", "good", "who", "1d", absent))  # type: ignore[arg-type]
    with pytest.raises(TidemillError, match="cannot be written to the catalogue"):
        await append_definitions(settings, topic_prefix, Definitions(1, 5, (event,), models=(model,)))
    assert await read_definitions(settings, topic_prefix) == NOTHING
