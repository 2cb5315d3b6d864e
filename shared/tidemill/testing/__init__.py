"""Testing a project without servers: feed events, read features at a moment, train, predict. All in this process, within milliseconds.

    world = World.load("path/to/project")
    world.publish("trips", {"at": 1_700_000_000_000, "id": "t1", "zone": "north", "fare": 12.5})
    assert world.features("zones", "north")["mean_fare_1h"].value == 12.5

The twins of the servers (`tidemill.testing.store`, `log`, `lake`) do what Redis, Kafka and Delta tables do: one suite of tests runs over both.
"""

from tidemill.routing.refusals import Reason, Refused
from tidemill.testing.world import FeatureValue, UnknownEvent, World

__all__ = ["FeatureValue", "Reason", "Refused", "UnknownEvent", "World"]
