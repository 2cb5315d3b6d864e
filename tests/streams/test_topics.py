"""Names and places: topics, partitions and keys of the online store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidemill import Event, FeatureView, count
from tidemill.declarations.project import Project
from tidemill.errors import DeclarationError
from tidemill.limits import MESSAGE_BYTES
from tidemill.offline.names import view_folder
from tidemill.online.keys import fence_key, state_key
from tidemill.streams import topics

SOLD = Event("sold", {"at": int, "shop": str}, time="at", topic="shop-floor", partitions=7)
SHOPS = FeatureView("shops", SOLD, "shop", [count()], partitions=3)
PROJECT = Project("corner", {"sold": SOLD}, {"shops": SHOPS})


def test_every_topic_of_a_project() -> None:
    """The application's topics by their own names, one per view, and the twelve that every project has."""
    specs = topics.topic_specs(PROJECT)
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "shop-floor": 7, "corner.view.shops.p3": 3, "corner.outcomes": 4, "corner.predictions": 4, "corner.shadows": 4,
        "corner.results": 1, "corner.alerts": 1, "corner.judgements": 1, "corner.notes": 1, "corner.deployments": 1, "corner.logs": 1, "corner.catalogue": 1,
        "corner.dead-letters": 1, "corner.retraining": 1,
    }  # fmt: skip


def test_the_group_of_ingestion() -> None:
    """Committed offsets are found again under this name."""
    assert topics.ingestion_group("corner") == "corner.ingestion"


@pytest.mark.parametrize("topic", ["corner.view.shops.p3", "corner.outcomes", "corner.dead-letters"])
def test_events_stay_away_from_the_projects_own_topics(topic: str) -> None:
    """An event on such a topic would be read as what it is not."""
    with pytest.raises(DeclarationError, match=f"topic '{topic}' is one of the project's own"):
        topics.topic_specs(replace(PROJECT, events={"sold": replace(SOLD, topic=topic)}))


def test_another_partition_count_is_another_log() -> None:
    """Nothing of a view under one count has the name of anything under another."""
    wider = replace(SHOPS, partitions=30)
    assert (SHOPS.log, wider.log) == ("shops.p3", "shops.p30")
    assert topics.view_topic("corner", wider.log) == "corner.view.shops.p30"
    assert view_folder(wider.log) == "views/shops.p30"
    assert fence_key("corner", wider.log, 2) != fence_key("corner", SHOPS.log, 2)
    assert state_key("corner", wider.log, 2, b"x").endswith(b"}x")


def test_the_log_is_kept() -> None:
    """Nothing that is needed to prove a value expires or is compacted; only the application's own topics do."""
    for name, spec in topics.topic_specs(PROJECT).items():
        assert spec.config["cleanup.policy"] == "delete"
        assert spec.config["retention.ms"] == ("604800000" if name == "shop-floor" else "-1")
        assert int(spec.config["max.message.bytes"]) > MESSAGE_BYTES
