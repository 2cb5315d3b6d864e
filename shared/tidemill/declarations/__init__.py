"""The declarations of a project: events, feature views, models. Each is checked when it is made.

A mistake raises DeclarationError, which names file and line, the field, and what to do.
"""

from tidemill.declarations.contents import Tensor, Words
from tidemill.declarations.entities import Entity
from tidemill.declarations.events import Event, Recording
from tidemill.declarations.fields import Field
from tidemill.declarations.models import Model, Outcome, Request
from tidemill.declarations.online import Online
from tidemill.declarations.retrain import Retrain
from tidemill.declarations.topics import Type
from tidemill.declarations.training import ByGroup, ByTime, Expect, RollingOrigin, Search, Select, Training
from tidemill.declarations.views import Feature, FeatureView, Selection

__all__ = [
    "ByGroup",
    "ByTime",
    "Entity",
    "Event",
    "Expect",
    "Feature",
    "FeatureView",
    "Field",
    "Model",
    "Online",
    "Outcome",
    "Recording",
    "Request",
    "Retrain",
    "RollingOrigin",
    "Search",
    "Select",
    "Selection",
    "Tensor",
    "Training",
    "Type",
    "Words",
]
