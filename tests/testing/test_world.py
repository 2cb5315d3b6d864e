"""A world answers what the services answer: the same features, predictions, training sets, refusals and dead letters, from the same events."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.demo_state import HOUR_MS, NOW_MS, demo, trained, trip
from tests.training.town import happened

from tidemill import Event, FeatureView, count, distinct, last_k
from tidemill.declarations.models import no_pipeline
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, BadRequest, KafkaUnavailable, NotDeployed, Rebuilding, TidemillError, UnknownModel, UnknownView
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs
from tidemill.models.roles import Seat
from tidemill.online.keys import fence_key, state_key
from tidemill.online.reader import OnlineReader
from tidemill.records import PredictionRecord, decoder
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import view_topic
from tidemill.testing import Reason, Refused, UnknownEvent, World
from tidemill.testing.running import at_once
from tidemill_inference.first_answers import FirstAnswers
from tidemill_inference.loaded import LoadedModel, LoadedVersion
from tidemill_inference.messages import PredictionAnswer, parse_predict
from tidemill_inference.predictor import Predictor
from tidemill_ingestion.http_api import EventsEndpoint
from tidemill_ingestion.publisher import Publisher
from tidemill_serving.app import FeatureServing

ZONES = ["north", "süd", "east"]
ENTITIES = {"zone": "north", "driver_id": 1, "distance": 2.5, "payment": "cash", "member": True}
_trips = st.lists(
    st.builds(
        trip,
        at=st.integers(-50 * HOUR_MS, 50 * HOUR_MS).map(lambda offset: NOW_MS + offset),
        zone=st.sampled_from(ZONES),
        fare=st.floats(-1e6, 1e6),
        tip=st.none() | st.floats(0, 9),
        driver=st.integers(0, 3),
        id=st.sampled_from(["a", "b", "c", "d"]),
    ),
    max_size=12,
)


def filled(trips: Sequence[dict[str, Any]]) -> World:
    """A world in which these trips happened, in this order."""
    world = World(demo())
    for data in trips:
        world.publish("trips", data)
    return world


@given(_trips, st.integers(-10 * HOUR_MS, 60 * HOUR_MS))
def test_features_are_those_of_feature_serving(trips: list[dict[str, Any]], ahead_ms: int) -> None:
    """Values, statuses and the newest event's age of every entity, at moments before and after the last event, are what the service answers."""
    world, time_ms = filled(trips), NOW_MS + ahead_ms
    zones = [*ZONES, "never seen", None]
    names = [feature.name for feature in demo().views["zones"].served]
    body = {"entities": {"zone": zones}, "features": [f"zones:{name}" for name in names], "as_of": time_ms}
    answer = json.loads(at_once(FeatureServing(demo(), world.redis).handle({}, msgspec.json.encode(body))).body)
    for row, zone in enumerate(zones):
        mine = world.features("zones", zone, at=time_ms)
        columns = answer["results"][1:]
        assert [(item.value, item.status) for item in mine.values()] == [
            (column["values"][row], column["statuses"][row]) for column in columns
        ]
        for item, column in zip(mine.values(), columns, strict=True):
            age = item.age_seconds
            assert (
                column["event_timestamps"][row].startswith("1970")
                if age is None
                else 0 <= age <= max(time_ms - min(t["at"] for t in trips), 0) / 1000
            )


@given(_trips)
def test_the_store_is_the_fold_of_its_topics(trips: list[dict[str, Any]]) -> None:
    """Every partition's fence and entities are, bit for bit, the fold of its topic from the beginning."""
    world = filled(trips)
    for view in demo().views.values():
        decode = entry_decoder(view)
        for number, partition in enumerate(world.kafka.partitions(view_topic("demo", view.log))):
            fold, states = PartitionFold.start(ViewKernel(view)), dict[bytes, EntityState]()
            fold.advance([decode(record.offset, record.key, record.value) for record in partition.records], states)
            assert world.redis.get(fence_key("demo", view.log, number)) == fold.fence.encode()
            for entity, state in states.items():
                assert world.redis.get(state_key("demo", view.log, number, entity)) == fold.kernel.encode(state)


class Kept:
    """A prediction log that keeps what is appended."""

    def __init__(self) -> None:
        self.records: list[PredictionRecord] = []

    def check(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Anything can be kept."""

    async def append(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Keeps predictions."""
        self.records += [decoder(PredictionRecord).decode(value) for _, value in entries]


@given(
    _trips,
    st.integers(-HOUR_MS, 60 * HOUR_MS),
    st.fixed_dictionaries({"zone": st.sampled_from([*ZONES, None]), "driver_id": st.integers(0, 4)}),
)
@settings(max_examples=20)
def test_predictions_are_those_of_inference(trips: list[dict[str, Any]], ahead_ms: int, entities: dict[str, Any]) -> None:
    """Output and inputs are those of inference's own predictor over the same store, to the bit."""
    world, kept, time_ms, given_ = filled(trips), Kept(), NOW_MS + ahead_ms, {**ENTITIES, **entities}
    artifact = ARTIFACT
    world.deploy(artifact)
    mine = world.predict("big_tip", given_, at=time_ms)
    kernels = {name: ViewKernel(view) for name, view in demo().views.items()}
    by_log = {kernel.view.log: kernel for kernel in kernels.values()}
    predictor = Predictor(
        OnlineReader(world.redis, "demo", by_log), FirstAnswers(world.redis, "demo"), kept  # type: ignore[arg-type]
    )  # fmt: skip
    model = demo().models["big_tip"]
    manifest = artifact.manifest
    version = LoadedVersion(
        model, manifest, load_engine(artifact), ModelInputs(model, manifest.categories), [kernels[view.name] for view in model.views]
    )
    loaded = LoadedModel(model.name, [Seat(manifest.version, "champion", 1.0)], {manifest.version: version})
    request = parse_predict(msgspec.json.encode({"entities": given_, "time": time_ms}), NOW_MS)
    (theirs,) = at_once(predictor.by_entity(loaded, request))
    assert isinstance(theirs, PredictionAnswer)
    assert (mine.output, mine.output_name, mine.version, mine.time_ms) == (
        theirs.output,
        theirs.output_name,
        theirs.version,
        theirs.time_ms,
    )
    assert theirs.features is not None
    assert {name: tuple(value) for name, value in mine.features.items()} == {
        name: (None if value.value != value.value else value.value, value.status, value.age_seconds)
        for name, value in theirs.features.items()
    }
    assert kept.records[0].output == mine.output


ARTIFACT = trained(demo().models["big_tip"])


def test_training_sees_what_requests_saw() -> None:
    """Each example holds, to the bit, what the world answered when it was asked at that moment."""
    world, model = World(demo()), demo().models["big_tip"]
    events = happened(60)
    asked = sorted((data["at"], data["id"], data) for _, name, data in events if name == "asked")
    answers: dict[str, list[Any]] = {}
    for known_ms, name, data in [*events, (2 * NOW_MS, "", {})]:
        while asked and asked[0][0] < known_ms:
            at, subject, wish = asked.pop(0)
            shown = {**world.features("zones", wish["zone"], at=at), **world.features("drivers", wish["driver_id"], at=at)}
            answers[subject] = [shown[feature.rpartition("__")[2]].value for feature in model.input_names[:-3]]
        if name:
            world.publish(name, data, at=known_ms)
    examples = world.training_set("big_tip")
    assert len(examples) > 30
    for subject, row in zip(examples.subjects, examples.matrix, strict=True):
        assert row[:-3].tobytes() == np.array(answers[subject], np.float32).tobytes()
    half = world.training_set("big_tip", until=int(examples.times_ms[30]))
    assert half.matrix.tobytes() != examples.matrix.tobytes()
    assert len(half) < len(examples)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_trained_and_asked() -> None:
    """The project's own pipeline learns from what was published, and what it then answers is what its model file gives for the shown inputs."""
    world = World(demo())
    for known_ms, name, data in happened(120):
        world.publish(name, data, at=known_ms)
    with pytest.raises(NotDeployed, match="no version of model"):
        world.predict("big_tip", ENTITIES)
    manifest = world.train("big_tip")
    assert (manifest.model, manifest.rows) == ("big_tip", len(world.training_set("big_tip")))
    assert 0 < world.predict("big_tip", ENTITIES).output < 1
    world.train("fare")
    fare = world.predict("fare", {"zone": "north", "distance": 7.0}, at="2023-11-15T12:00:00Z")
    assert (fare.output_name, list(fare.features)) == ("value", demo().models["fare"].input_names)
    with pytest.raises(BadRequest, match=r"entities\.distance"):
        world.predict("fare", {"zone": "north", "distance": "far"})


def test_a_version_of_other_declarations() -> None:
    """A version that was made for another definition of a view is refused, as inference refuses it."""
    other = msgspec.structs.replace(ARTIFACT.manifest, definitions={"zones": "another", "drivers": "another"})
    with pytest.raises(ArtifactError, match="another definition of view zones"):
        World(demo()).deploy(ARTIFACT._replace(manifest=other))


def test_without_examples() -> None:
    """A world in which nothing happened has nothing to learn from, and says so."""
    with pytest.raises(TidemillError, match="no training examples"):
        World(demo()).training_set("big_tip")


BAD: list[tuple[str, Any, Reason, str | None]] = [
    ("trips", {"at": NOW_MS, "id": "x", "zone": "north"}, Reason.MISSING_FIELD, "driver"),
    ("trips", {"at": NOW_MS, "id": "x", "zone": "north", "drivr": "d"}, Reason.MISSING_FIELD, "driver"),
    ("trips", trip(NOW_MS, "", id="x"), Reason.BAD_KEY, "zone"),
    ("trips", trip(NOW_MS, "north", float("nan"), id="x"), Reason.NOT_FINITE, "fare"),
    ("trips", trip(-1, "north", id="x"), Reason.BAD_TIME, "at"),
    ("trips", trip(NOW_MS, "north", id="x") | {"at": "noon"}, Reason.WRONG_TYPE, "at"),
    ("nothing", {}, Reason.UNKNOWN_EVENT, "type"),
]


@pytest.mark.parametrize(("event", "data", "reason", "field"), BAD, ids=[f"{case[2].value} {case[3]}" for case in BAD])
def test_refusals_are_those_of_ingestion(event: str, data: Any, reason: Reason, field: str | None) -> None:
    """A bad event is refused for the very reason, field and words of POST /events, and nothing happens."""
    world = World(demo())
    endpoint = EventsEndpoint(demo(), Publisher(KafkaSettings(bootstrap_servers="nowhere:1")), HealthBoard("kafka"))
    body, one_a_line = json.dumps({"type": event, "data": data}).encode(), {"headers": [(b"content-type", b"application/x-ndjson")]}
    answer = json.loads(at_once(endpoint.handle(one_a_line, body)).body)["results"][0]
    with pytest.raises(Refused) as refused:
        world.publish(event, data)
    assert (refused.value.reason, refused.value.field) == (reason, field)
    assert (answer["reason"], answer.get("field"), answer["detail"]) == (reason, field, refused.value.message)
    assert (world.dead_letters, world.now_ms) == ([], 0)


def test_an_endpoint_without_kafka_writes_nothing() -> None:
    """The endpoint that refusals are compared with judges events as it does in production: a good one it would write to Kafka."""
    endpoint = EventsEndpoint(demo(), Publisher(KafkaSettings(bootstrap_servers="nowhere:1")), HealthBoard("kafka"))
    body = json.dumps({"type": "trips", "data": trip(NOW_MS, "north", id="x")}).encode()
    with pytest.raises(KafkaUnavailable):
        at_once(endpoint.handle({"headers": []}, body))


def test_what_lies_on_a_topic_and_cannot_be_used() -> None:
    """Records that an application wrote itself become dead letters with reason and place; the good ones among them count, and tombstones are nothing."""
    world = World(demo())
    world.receive("trips", b"{", at=NOW_MS)
    world.receive("trips", None)
    world.receive("trips", json.dumps(trip(NOW_MS, "north", id="x")).encode(), [("ce_type", b"trips")])
    world.receive("trips", json.dumps(trip(NOW_MS, "north", id="y")).encode(), [("ce_type", b"asked")])
    assert [(letter.reason, letter.source[0]) for letter in world.dead_letters] == [
        ("not_json", "trips"), ("wrong_event", "trips"),
    ]  # fmt: skip
    assert world.features("zones", "north")["count_1h"].value == 1
    with pytest.raises(UnknownEvent, match="asked, trips"):
        world.receive("nothing", b"{}")


def test_late_and_early_events() -> None:
    """An event beyond the longest window is a dead letter of its view, one too far ahead is refused for it; both say so."""
    sold = Event("sold", {"at": int, "shop": str}, time="at")
    world = World(Project("p", {"sold": sold}, {"shops": FeatureView("shops", sold, "shop", [count()], windows=["1h"], ahead="30m")}))
    world.publish("sold", {"at": NOW_MS, "shop": "s1"})
    world.publish("sold", {"at": NOW_MS - 9 * HOUR_MS, "shop": "s1"})
    world.publish("sold", {"at": NOW_MS + HOUR_MS // 4, "shop": "s1"}, at=NOW_MS)
    world.publish("sold", {"at": NOW_MS + HOUR_MS * 3 // 4, "shop": "s1"}, at=NOW_MS)
    with pytest.raises(Refused, match="more than 1h"):
        world.publish("sold", {"at": NOW_MS + 2 * HOUR_MS, "shop": "s1"}, at=NOW_MS)
    assert [(letter.reason, letter.view) for letter in world.dead_letters] == [("late", "shops"), ("future_time", "shops")]
    assert [letter.source[0] for letter in world.dead_letters] == ["p.view.shops.p4", "sold"]
    assert [world.features("shops", "s1", at=NOW_MS + after)["count_1h"].value for after in (0, HOUR_MS // 4, 2 * HOUR_MS)] == [1, 2, 0]


@pytest.mark.parametrize(("tiles", "waits"), [({}, False), ({"30d": "1h"}, True), ({"30d": "30m"}, True)])
def test_an_event_that_lies_ahead_waits_for_its_tile(tiles: dict[str, str], waits: bool) -> None:
    """A window of long tiles has it at once, one of short tiles when its tile begins; each has it from its time on."""
    sold = Event("sold", {"at": int, "shop": str}, time="at")
    view = FeatureView("shops", sold, "shop", [count()], windows=["1h", "30d"], tiles=tiles, ahead="1h")
    world = World(Project("p", {"sold": sold}, {"shops": view}))
    noon = NOW_MS - NOW_MS % (6 * HOUR_MS)
    world.publish("sold", {"at": noon, "shop": "s1"})
    world.publish("sold", {"at": noon + HOUR_MS, "shop": "s1"}, at=noon + HOUR_MS // 3)

    def counts(at_ms: int) -> list[float | str | None]:
        found = world.features("shops", "s1", at=at_ms)
        assert {one.status for one in found.values()} == {"PRESENT"}
        return [found[f"count_{window}"].value for window in ("1h", "30d")]

    assert counts(noon + HOUR_MS // 3) == [1, 1 if waits else 2]
    assert counts(noon + HOUR_MS - 1) == [1, 1 if waits else 2]
    assert counts(noon + HOUR_MS) == [2, 2]


def test_when_an_event_becomes_known() -> None:
    """By default at its own time, but never before what was known already; `at` says otherwise, and is the moment that features are read at."""
    world = World(demo())
    world.publish("trips", trip(NOW_MS, "north", id="a"))
    world.publish("trips", trip(NOW_MS - HOUR_MS, "north", id="b"))
    assert world.now_ms == NOW_MS
    world.publish("trips", trip(NOW_MS, "north", id="c"), at=NOW_MS + HOUR_MS)
    assert world.now_ms == NOW_MS + HOUR_MS
    view = demo().views["zones"]
    records = world.kafka.partitions(view_topic("demo", view.log))[partition_of(b"north", view.partitions)].records
    assert [msgspec.json.decode(record.value or b"")["known"] for record in records] == [NOW_MS, NOW_MS, NOW_MS + HOUR_MS]
    assert world.features("zones", "north")["age"].age_seconds == 3600


def test_a_publisher_s_duplicate() -> None:
    """The same id counts once, whether it is a field or the CloudEvents id."""
    world = World(demo())
    for _ in range(2):
        world.publish("trips", trip(NOW_MS, "north", id="a"))
    world.publish("trips", {name: value for name, value in trip(NOW_MS, "north").items() if name != "id"}, id="a")
    assert world.features("zones", "north")["count_1h"].value == 1


def test_a_store_that_lost_everything() -> None:
    """Nothing is served in the place of what is gone."""
    world = filled([trip(NOW_MS, "north", id="a")])
    world.redis.data.clear()
    with pytest.raises(Rebuilding):
        world.features("zones", "north")


def test_names_that_are_not_declared() -> None:
    """A view or model that does not exist is named, with those that do."""
    world = World(demo())
    with pytest.raises(UnknownView, match="drivers, zones"):
        world.features("zone", "north")
    for ask in (world.training_set, world.train, lambda name: world.predict(name, {})):
        with pytest.raises(UnknownModel, match="big_tip"):
            ask("tip")


async def test_it_works_inside_a_running_loop() -> None:
    """A test that is a coroutine uses a world like any other."""
    assert filled([trip(NOW_MS, "north", id="a")]).features("zones", "north")["count_1h"].value == 1


def test_what_waits_is_told() -> None:
    """A coroutine that waits for something is ended, not waited for."""

    async def waits() -> None:
        await EmptyWait()

    class EmptyWait:
        def __await__(self) -> Any:
            yield

    with pytest.raises(RuntimeError, match="answers at once"):
        at_once(waits())


def test_where_counts_only_some_events() -> None:
    """Two of four payments are in cash; an entity that never paid in cash is not known."""
    paid = Event("paid", {"at": int, "shop": str, "payment": str | None}, time="at")
    cash = FeatureView("cash", paid, "shop", [count()], where="payment == 'Cash'")
    world = World(Project("corner", {"paid": paid}, {"cash": cash}))
    for i, payment in enumerate(("Cash", "Card", None, "Cash")):
        world.publish("paid", {"at": NOW_MS + i, "shop": "north", "payment": payment})
    world.publish("paid", {"at": NOW_MS, "shop": "south", "payment": "Card"})
    assert world.features("cash", "north")["count"].value == 2
    assert world.features("cash", "south")["count"].status == "NOT_FOUND"


def test_lists_are_served_as_lists() -> None:
    """A feature that is a list is one in a world too."""
    sold = Event("sold", {"at": int, "shop": str, "price": float}, time="at")
    shops = FeatureView("shops", sold, "shop", [last_k("price", 2), distinct("price")])
    world = World(Project("corner", {"sold": sold}, {"shops": shops}))
    for i, price in enumerate((1.0, 2.0, 3.0)):
        world.publish("sold", {"at": NOW_MS + i, "shop": "north", "price": price})
    found = {name: value.value for name, value in world.features("shops", "north").items()}
    assert found == {"last_2_price": [2.0, 3.0], "distinct_price": 3.0}


def test_a_model_without_a_pipeline_says_how_it_gets_a_version() -> None:
    """Before its first version a model that only takes files from elsewhere names the command that imports one."""
    project = demo()
    tips = dataclasses.replace(project.models["big_tip"], pipeline=no_pipeline)
    world = World(dataclasses.replace(project, models={"big_tip": tips}))
    with pytest.raises(NotDeployed, match=r"run: tidemill models import big_tip FILE\.onnx"):
        world.predict("big_tip", ENTITIES)
