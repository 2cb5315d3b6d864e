"""tidemill: events on Kafka in, predictions that can be trusted out. A project declares events, feature views and models with these names."""

from tidemill.aggregates import age, count, last, max, mean, min, rate, std, sum
from tidemill.declarations import Entity, Event, FeatureView, Model, Outcome, Recording, Request

__all__ = [
    "Entity", "Event", "FeatureView", "Model", "Outcome", "Recording", "Request",
    "age", "count", "last", "max", "mean", "min", "rate", "std", "sum",
]  # fmt: skip
