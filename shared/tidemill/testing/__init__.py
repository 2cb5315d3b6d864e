"""Testing a project without servers: publish events, read features at a moment, train, predict. All in this process, in milliseconds.

    world = World.load("path/to/project")
    world.publish("trips", {"at": 1_700_000_000_000, "id": "t1", "zone": "north", "fare": 12.5})
    assert world.features("zones", "north")["mean_fare_1h"].value == 12.5

The twins of the servers (`tidemill.testing.store`, `log`, `lake`) behave like Redis, Kafka and Delta tables. One suite of tests runs over
the twins and over the servers.
"""

from tidemill.errors import UnknownEvent
from tidemill.routing.refusals import Reason, Refused
from tidemill.testing.values import FeatureValue
from tidemill.testing.world import World

__all__ = ["FeatureValue", "Reason", "Refused", "UnknownEvent", "World"]
