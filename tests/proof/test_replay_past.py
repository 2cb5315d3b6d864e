"""Replay of predictions that were made by definitions which are no longer in force."""

from __future__ import annotations

import msgspec
import pytest
from tests.demo_state import NOW_MS, demo, saved
from tests.proof.test_replay import MODEL, differences, model_version, predicted, trips
from tests.proof.world import World

from tidemill import FeatureView, count, max
from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_event, write_model, write_view
from tidemill.offline.store import OfflineStore
from tidemill.proof.past import FOLLOWING_MS, Definition
from tidemill.proof.replay import Replayed, logged, replay
from tidemill.records import PredictionRecord

EVENTS = tuple(write_event(event) for event in demo().events.values())
ZONES = FeatureView("zones", demo().events["trips"], "zone", [count(), max("fare")], windows=["1h"])
VIEWS = {name: ViewVersion(write_view(view), 1, {}) for name, view in demo().views.items()}
SECOND = ViewVersion(write_view(ZONES), 2, {}, 2)
ONE = Definitions(1, 5, EVENTS, tuple(VIEWS.values()), {"zones": 1, "drivers": 1}, (write_model(MODEL),))
TWO = Definitions(2, 6, EVENTS, (*ONE.views, SECOND), {"zones": 2, "drivers": 1})  # another view, and no model
PRUNED = Definitions(3, 7, EVENTS, (VIEWS["drivers"], SECOND), TWO.in_force)
EXPIRING = msgspec.structs.replace(VIEWS["zones"], view=msgspec.structs.replace(VIEWS["zones"].view, ttl="1m"))
SHORT = Definitions(2, 6, EVENTS, (EXPIRING, VIEWS["drivers"]), ONE.in_force, ONE.models)


def of(definitions: Definitions) -> Project:
    """The project of a record."""
    return project_of(definitions, "demo")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OfflineStore:
    """Logs of trips, a model, and predictions made by the first record of the catalogue."""
    made = World(demo(), tmp_path_factory.mktemp("offline"))
    made.publish(trips(120))
    saved(str(made.root), model_version())
    made.predict(predicted(made, i, i / 20) for i in range(21))
    return made.write()


def replayed(store: OfflineStore, now: Definitions, *history: tuple[int, Definitions]) -> list[Replayed]:
    """All predictions, when `now` is in force and the records of the catalogue were these."""
    return replay(of(now), store, logged(store), history=[Definition(since_ms, of(each)) for since_ms, each in history])


def test_a_model_and_a_view_that_changed_since(store: OfflineStore) -> None:
    """The model is declared no more, and its view has another version: every prediction is equal, flags of requests included."""
    results = replayed(store, TWO, (0, ONE), (NOW_MS + 10**8, TWO))
    assert (len(results), differences(results), [found.passed_over for found in results if found.passed_over]) == (21, {}, [])


def test_while_services_followed_either_may_have_counted(store: OfflineStore) -> None:
    """The clock of who wrote the record says little about when each service had it."""
    first = min(prediction.served for prediction in logged(store))
    last = max_served(logged(store))
    assert differences(replayed(store, SHORT, (0, ONE), (last + 1, SHORT))) == {}
    late = differences(replayed(store, SHORT, (0, ONE), (last - FOLLOWING_MS // 2, SHORT)))
    assert late == {}
    assert differences(replayed(store, SHORT, (0, SHORT), (first - 2 * FOLLOWING_MS, SHORT)))


def test_values_expired_as_they_did_then(store: OfflineStore) -> None:
    """Another ttl changes a version in its place: what was answered before it is recomputed with the old one."""
    assert differences(replayed(store, SHORT, (0, ONE), (NOW_MS + 10**8, SHORT))) == {}
    assert differences(replayed(store, SHORT, (0, ONE), (NOW_MS - 10**8, SHORT)))


def test_what_was_pruned_is_passed_over(store: OfflineStore) -> None:
    """A prediction that read the version says so; one that read no entity of the view is recomputed."""
    results = replayed(store, PRUNED, (0, ONE), (NOW_MS + 10**8, TWO), (NOW_MS + 2 * 10**8, PRUNED))
    read = {found.prediction.id: any(entry.view.startswith("zones") for entry in found.prediction.stamp) for found in results}
    assert {found.prediction.id: found.passed_over for found in results} == {
        name: "zones@v1 was pruned" if seen else "" for name, seen in read.items()
    }
    assert 0 < sum(read.values()) < 21
    assert differences([found for found in results if not found.passed_over]) == {}


def test_a_model_of_no_record_is_passed_over(store: OfflineStore) -> None:
    """It was declared before there was a catalogue."""
    (why,) = {found.passed_over for found in replayed(store, TWO, (0, TWO))}
    assert why == "the catalogue never had model big_tip"


def max_served(predictions: list[PredictionRecord]) -> int:
    """When the last one was answered."""
    return sorted(prediction.served for prediction in predictions)[-1]
