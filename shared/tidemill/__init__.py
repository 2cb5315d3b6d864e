"""tidemill: from events on Kafka to predictions that can be trusted. A project declares events, views and models with these names."""

from tidemill.declarations import (
    ByGroup,
    ByTime,
    Entity,
    Event,
    Expect,
    FeatureView,
    Field,
    Model,
    Online,
    Outcome,
    Recording,
    Request,
    Retrain,
    RollingOrigin,
    Search,
    Select,
    Tensor,
    Training,
    Type,
    Words,
)
from tidemill.declarations.aggregates import age, count, last, max, mean, min, rate, std, sum
from tidemill.declarations.distinct import distinct
from tidemill.declarations.first import first
from tidemill.declarations.last_k import last_k

__all__ = [
    "ByGroup", "ByTime", "Entity", "Event", "Expect", "FeatureView", "Field", "Model", "Online", "Outcome", "Recording", "Request", "Retrain",
    "RollingOrigin", "Search", "Select", "Tensor", "Training", "Type", "Words",
    "age", "count", "distinct", "first", "last", "last_k", "max", "mean", "min", "rate", "std", "sum",
]  # fmt: skip
