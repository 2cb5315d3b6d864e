"""What is compared with SQL: samples of what is served, of logged predictions, and of a training set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import KNOWN, LOADED, MOMENT, OWN, TOPIC, event_folder
from tidemill.declarations import Event, FeatureView, Model, Request
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.timestamps import rfc3339
from tidemill.verify.compare import Compared, Example, Told, compare, possible
from tidemill.verify.entities import entity_text
from tidemill.verify.labels import Labelled, labelled, outcome_fields, question_fields
from tidemill.verify.requested import UnfitValue, is_refused, same_request
from tidemill.verify.rows_of import rows_of
from tidemill.verify.sql import BY_KNOWN, AskedMoment, SqlView, Value
from tidemill.verify.stamped import knowledge

Served = Callable[[FeatureView, Sequence[str], int], list[Mapping[str, tuple[str, Value | None]]]]
"""(view, entities, epoch ms) -> for each entity, state and value of each feature by name, as served for this moment."""

_UNKNOWN_TEXT = "\uffffunknown"  # in the log and in manifests; `models.inputs` writes it
LoggedInputs = Mapping[str, Sequence[str]]
"""The inputs of a version of a model by name, in the order of the log; each with the texts for which its numbers stand, if it is a text."""

_MOMENTS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Key = tuple[str, int, int]
T = TypeVar("T")


def archived(store: OfflineStore, event: Event, fields: Sequence[str]) -> pa.Table:
    """The archived events of a declaration, with the columns that some fields need. Raises UnknownTable, OfflineUnavailable."""
    snapshot = store.snapshot(event_folder(event.name))
    return snapshot.scan(
        [*OWN.names, *(name for name in dict.fromkeys(fields) if name in snapshot.columns and name not in OWN.names)], order=()
    )


def view_archive(store: OfflineStore, view: FeatureView, loads: Collection[str] | None = None) -> pa.Table:
    """The archived events that a view needs. `loads`: the files of history that it has (None: all that are loaded)."""
    table = archived(store, view.source, view.read_fields)
    if loads is None:
        return table
    has = pa.array([f"{LOADED}{digest}" for digest in loads], pa.string())
    return table.filter(pc.or_(pc.invert(pc.starts_with(table[TOPIC], LOADED)), pc.is_in(table[TOPIC], has)))


def check_served(
    views: Sequence[FeatureView],
    read: Callable[[FeatureView], pa.Table],
    served: Served,
    now_ms: Callable[[], int],
    settle: Callable[[], None],
    sample: int,
    seed: int,
) -> list[Compared]:
    """Asks for about `sample` entities of each view at some moments, and compares. `read`: the archive of a view as it is now; `settle`: waits
    until it has what was seen by now. A difference counts when it is found twice: an archive may be late."""
    found, left = dict[FeatureView, Compared](), list(views)
    for _ in range(2):
        asked = [(view, _answers(view, read(view), served, now_ms, sample, seed)) for view in left]
        if asked:
            settle()
        found |= {view: _compared(view, read(view), answers) for view, answers in asked}
        left = [view for view in left if found[view].differ]
    return [found[view] for view in views]


class _AnswerGiven(NamedTuple):
    """The features of an entity for the moment `at_ms`, as served at `asked_ms`."""

    entity: str
    at_ms: int
    asked_ms: int
    values: Mapping[str, tuple[str, Value | None]]


def _answers(view: FeatureView, events: pa.Table, served: Served, now_ms: Callable[[], int], sample: int, seed: int) -> list[_AnswerGiven]:
    """Asks for a sample of the entities that these events have."""
    before = SqlView(view, events)
    entities = before.entities(sample, seed)
    moments = before.moments(_MOMENTS - 1, seed)
    before.close()
    answers = list[_AnswerGiven]()
    for i in range(min(_MOMENTS, len(entities))):
        some, asked_ms = entities[i::_MOMENTS], now_ms()
        at_ms = asked_ms if not i or asked_ms < moments[i - 1] else moments[i - 1]
        answers += [_AnswerGiven(entity, at_ms, asked_ms, values) for entity, values in zip(some, served(view, some, at_ms), strict=True)]
    return answers


def _compared(view: FeatureView, events: pa.Table, answers: Sequence[_AnswerGiven]) -> Compared:
    sql = SqlView(view, events)
    told = [
        Told(f"{view.name} of {entity} at {rfc3339(at_ms)}", possible(sql, entity, at_ms, asked_ms), values)
        for entity, at_ms, asked_ms, values in answers
    ]
    compared = compare(f"served: {view.name}", sql, told)
    sql.close()
    return compared


def check_logged(
    views: Sequence[FeatureView],
    inputs: Mapping[str, LoggedInputs],
    archives: Mapping[str, pa.Table],
    predictions: Sequence[Mapping[str, Any]],
    model: str,
    records: Callable[[FeatureView, Collection[str]], pa.Table],
) -> list[Compared]:
    """Compares the inputs of a model's logged predictions, view by view. `inputs`: those of each version; `archives`: the archived events by view;
    `predictions`: rows of the table `predictions`; `records`: see `stamped.records_of`.

    Predictions without entities (by tensor) and of versions without names say nothing about views.
    """
    found = []
    for view in views:
        sql, told = SqlView(view, archives[view.name]), []
        asking = [(entity_text(view.key.names, msgspec.json.decode(row["entities"] or "{}")), row) for row in predictions]
        log = records(view, {entity for entity, _ in asking if entity is not None})
        for entity, row in asking:
            names = inputs.get(row["version"], {})
            if entity is not None and len(names) == len(row["inputs"]):
                values = logged_values(view, names, row["inputs"])
                asked = knowledge(sql, entity, row, log)
                told.append(Told(f"prediction {row['id']}", asked, values, rounded=True, may_lack=True))
        found.append(compare(f"logged: {model}, {view.name}", sql, told))
        sql.close()
    return found


def check_training_set(
    model: Model,
    table: pa.Table,
    asking: tuple[pa.Table, pa.Table],
    archives: Mapping[str, pa.Table],
    until_ms: int,
    sample: int,
    seed: int,
) -> list[Compared]:
    """Compares rows of a training set: that they are questions with these answers, that no sampled question is missing, what they carry as
    requests, and their features.

    `table`: the columns subject, time, label, those of requests, and `<view>__<feature>`; `asking`: the archived events that announce, and
    those that bring outcomes; `archives`: the archived events by view; `until_ms`: the moment until which the set was made.
    """
    asked = labelled(model, *asking, until_ms)
    by_key = dict(_numbered((question.subject, question.at_ms, question) for question in asked if _is_example(model, question)))
    numbered = dict(_numbered((row["subject"], row["time"], row) for row in _rows(table)))
    chosen = random.Random(seed).sample(list(numbered), min(sample, len(numbered)))
    compared = [_check_labels(model, {key: numbered[key]["label"] for key in chosen}, by_key)]
    compared.append(_check_missing(model, by_key, numbered.keys(), sample, seed))
    if model.requests:
        compared.append(_check_requests(model, {key: numbered[key] for key in chosen}, by_key))
    for place, view in enumerate(model.views):
        columns, sql, told = columns_of(view, table.column_names), SqlView(view, archives[view.name]), []
        for key in chosen:
            row, question = numbered[key], by_key.get(key)
            if question is not None:
                values = {feature: (None, row[name]) for feature, name in columns.items()}
                what = f"training row of {row['subject']} at {rfc3339(row['time'])}"
                told.append(Told(what, [_asked_at(model, view, question, place)], values, rounded=True))
        compared.append(compare(f"trained on: {model.name}, {view.name}", sql, told, shifts_ms=(BY_KNOWN,)))
        sql.close()
    return compared


def check_training_rows(store: OfflineStore, model: Model, table: pa.Table, until_ms: int, sample: int, seed: int) -> list[Compared]:
    """The same for the rows of some subjects of a large set: only events of these subjects, and of their entities, are read.

    Raises UnknownTable, OfflineUnavailable.
    """
    places = random.Random(seed).sample(range(len(table)), min(sample, len(table)))
    subjects, outcome = set(table["subject"].take(pa.array(places, pa.int64())).to_pylist()), model.outcome
    rows = table.filter(pc.is_in(table["subject"], pa.array(subjects)))
    announced = rows_of(_archive(store, model.on), model.on, [model.subject], subjects, question_fields(model))
    outcomes = rows_of(_archive(store, outcome.source), outcome.source, [outcome.subject], subjects, outcome_fields(model))
    until_ms = known_until(store, model, until_ms)
    asked, archives = labelled(model, announced, outcomes, until_ms), dict[str, pa.Table]()
    for place, view in enumerate(model.views):
        entities = {question.entities[place] or "" for question in asked}
        archives[view.name] = rows_of(_archive(store, view.source), view.source, view.key.fields, entities, view.read_fields)
    return check_training_set(model, rows, (announced, outcomes), archives, until_ms, sample, seed)


def known_until(store: OfflineStore, model: Model, until_ms: int) -> int:
    """The moment until which events tell what came of a question: just after the newest one that a training set until `until_ms` reads."""
    newest, limit = -1, pa.scalar(until_ms * 1000, MOMENT)
    for event in dict.fromkeys((model.on, model.outcome.source)):
        for batch in _archive(store, event).batches([KNOWN], pc.field(KNOWN) < limit):
            if batch.num_rows:
                newest = max(newest, pc.max(batch[KNOWN]).cast(pa.int64()).as_py() // 1000)
    return min(until_ms, newest + 1)


def _archive(store: OfflineStore, event: Event) -> Snapshot:
    return store.snapshot(event_folder(event.name))


def logged_values(view: FeatureView, inputs: LoggedInputs, logged: Sequence[float | None]) -> dict[str, tuple[None, float | str | None]]:
    """The features of a view among the inputs of a logged prediction. A text that was not there in training is null."""
    numbers = dict(zip(inputs, logged, strict=True))
    return {feature: (None, _logged_value(inputs[name], numbers[name])) for feature, name in columns_of(view, list(inputs)).items()}


def _logged_value(categories: Sequence[str], number: float | None) -> float | str | None:
    if not categories or number is None:
        return number
    text = categories[int(number)]
    return None if text == _UNKNOWN_TEXT else text


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    missing = [name for name in ("subject", "time", "label") if name not in table.column_names]
    if missing:
        raise TidemillError(f"the training set has no column {missing[0]!r}", mend="pass a file that `tidemill train-set` wrote")
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row["time"] = row["time"] if isinstance(row["time"], int) else (row["time"] - _EPOCH) // timedelta(milliseconds=1)
    return rows


def _numbered(found: Iterable[tuple[str, int, T]]) -> Iterator[tuple[_Key, T]]:
    """Rows or questions by subject, time, and the number among those that share both: in a set they stand in the order of known."""
    count = Counter[tuple[str, int]]()
    for subject, time_ms, one in found:
        yield (subject, time_ms, count[subject, time_ms]), one
        count[subject, time_ms] += 1


def _asked_at(model: Model, view: FeatureView, question: Labelled, place: int) -> AskedMoment:
    """What a row sees: events known at its time, but not the event that asks, unless that was known before."""
    own = question.announcement if view.source is model.on and question.announcement.known_ms == question.at_ms else None
    return AskedMoment(question.entities[place] or "", question.at_ms, question.at_ms + 1, own)


def _is_example(model: Model, question: Labelled) -> bool:
    """Whether a question is an example: its label is any, or one of the declared classes, and as a request it is not refused."""
    known = question.label is not None and (not model.outcome.classes or question.label in model.outcome.classes)
    return known and not is_refused(model, question.given)


def _check_labels(model: Model, labels: Mapping[_Key, float | str], asked: Mapping[_Key, Labelled]) -> Compared:
    compared = Compared(f"labels: {model.name}", values=len(labels))
    for key, label in labels.items():
        question = asked.get(key)
        if question is None or question.label != label:
            compared.note(_label_example(key, label, None if question is None else question.label), 3)
    return compared


def _check_missing(model: Model, asked: Mapping[_Key, Labelled], present: Collection[_Key], sample: int, seed: int) -> Compared:
    """Whether sampled questions that have an answer are rows."""
    chosen = random.Random(seed).sample(list(asked), min(sample, len(asked)))
    compared = Compared(f"questions: {model.name}", values=len(chosen))
    for key in chosen:
        if key not in present:
            compared.note(_label_example(key, "no row", asked[key].label), 3)
    return compared


def _check_requests(model: Model, rows: Mapping[_Key, Mapping[str, Any]], asked: Mapping[_Key, Labelled]) -> Compared:
    """Whether rows have the values that their questions carry."""
    compared = Compared(f"requests: {model.name}")
    for key, row in rows.items():
        if (question := asked.get(key)) is None:
            continue
        for request, value in zip(model.requests, question.given, strict=True):
            compared.values += 1
            if not _is_carried(request, value, row.get(request.name)):
                what, told, carried = f"{key[0]} at {rfc3339(key[1])}", f"{row.get(request.name)!r:.100}", f"{value!r:.100}"
                compared.note(Example(what, request.name, told, carried, []), 3)
    return compared


def _is_carried(request: Request, value: Any, trained: Any) -> bool:
    try:
        return same_request(request, value, trained)
    except UnfitValue:  # the cell is no tensor
        return False


def _label_example(key: _Key, told: Any, label: float | str | None) -> Example:
    return Example(f"{key[0]} at {rfc3339(key[1])}", "label", repr(told), repr(label), [])


def columns_of(view: FeatureView, names: Sequence[str]) -> dict[str, str]:
    """The columns of a view's features, among columns or inputs called `<view>__<feature>`: column by feature."""
    stem = f"{view.plain_name}__"
    return {name.removeprefix(stem): name for name in names if name.startswith(stem)}
