"""What a project declares: events, feature views, models. Everything is checked when it is written down.

A mistake raises DeclarationError, which names the file and line, the field and the mend.
"""

from tidemill.declarations.events import Event, Recording
from tidemill.declarations.models import Model, Outcome, Request
from tidemill.declarations.views import Entity, Feature, FeatureView, Selection

__all__ = ["Entity", "Event", "Feature", "FeatureView", "Model", "Outcome", "Recording", "Request", "Selection"]
