"""tidemill: events on Kafka in, predictions that can be trusted out. A project declares events, feature views and models with these names."""

from tidemill.declarations import Entity, Event, FeatureView, Model, Outcome, Recording, Request
from tidemill.declarations.aggregates import age, count, last, max, mean, min, rate, std, sum

__all__ = [
    "Entity", "Event", "FeatureView", "Model", "Outcome", "Recording", "Request",
    "age", "count", "last", "max", "mean", "min", "rate", "std", "sum",
]  # fmt: skip
