"""Every mistake that a declaration can contain is answered with its place, the field at fault and the mend."""

from __future__ import annotations

import ast
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import tidemill
from tidemill import (
    ByGroup,
    ByTime,
    Entity,
    Event,
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
    Tensor,
    Training,
    Type,
    Words,
    count,
    distinct,
    last_k,
    max,
    mean,
    rate,
)
from tidemill.declarations import Selection
from tidemill.declarations.aggregations import LastText, Mean
from tidemill.declarations.models import no_pipeline
from tidemill.declarations.project import collect
from tidemill.errors import DeclarationError
from tidemill.streams.topics import topic_specs

FIELDS: dict[str, Any] = {"who": str, "at": int, "x": float | None, "n": int, "flag": bool, "word": str, "maybe": int | None}
GOOD = Event("good", FIELDS, time="at")
BOTH = Event("both", {**FIELDS, "X": float}, time="at")
ASKED = Event("asked", {**FIELDS, "when": str}, time="at")
VIEW = FeatureView("view", GOOD, "who", [count(), mean("x")], windows=["1h"])
LISTS = FeatureView("lists", GOOD, "who", [count(), last_k("x", 2)])
TYPED: dict[str, Any] = {"topic": "t", "type": Type("A", field="type")}
SHARED = Event("shared", FIELDS, time="at", **TYPED)
OUTCOME = Outcome(GOOD, "x > 1", subject="who")
CHANGED = Event("changed", {**FIELDS, "gone": Field(bool, path="__deleted")}, time="at", envelope="debezium")


def event(**changes: Any) -> dict[str, Any]:
    """Arguments of an Event, with one changed."""
    return {"name": "e", "fields": FIELDS, "time": "at", **changes}


def view(*features: Any, **changes: Any) -> dict[str, Any]:
    """Arguments of a FeatureView, with one changed."""
    return {"name": "v", "source": GOOD, "entity": "who", "features": features or [count()], **changes}


def model(**changes: Any) -> dict[str, Any]:
    """Arguments of a Model, with one changed."""
    given = {"name": "m", "on": ASKED, "at": "at", "subject": "who", "inputs": [VIEW], "outcome": OUTCOME, "pipeline": list}
    return {**given, **changes}


def gathered(**declared: Any) -> None:
    """Collects declarations as a project module."""
    module = ModuleType("project")
    vars(module).update(declared)
    topic_specs(collect(module, None))


# (what is declared, the field at fault, a piece of the cause, a piece of the mend); one line each, since the line is checked
CASES: list[tuple[Callable[[], Any], str, str, str]] = [
    (lambda: Event(**event(name="9lives")), "name", "'9lives' is not a usable name", "letters, digits and underscores"),
    (lambda: Event(**event(name="class")), "name", "'class' is not a usable name", "Python"),
    (lambda: Event(**event(name=None)), "name", "None is not a usable name", "parts joined by dots"),
    (lambda: Event(**event(name="n" * 121)), "name", "not a usable name", "letters"),
    (lambda: Event(**event(topic="a b")), "topic", "Kafka accepts no topic 'a b'", "dashes"),
    (lambda: Event(**event(topic="..")), "topic", "Kafka accepts no topic", "dashes"),
    (lambda: Event(**event(partitions=0)), "partitions", "0 partitions", "at least 1"),
    (lambda: Event(**event(fields={"at": int, "from": str})), "fields['from']", "'from' is not a usable name", "Python"),
    (lambda: Event(**event(fields={"at": int, "a-b": str})), "fields['a-b']", "not a usable name", "underscores"),
    (lambda: Event(**event(fields={"at": int, "y": list})), "fields['y']", "is not a type of an event's field", "float | None"),
    (lambda: Event(**event(fields={"at": int, "y": int | str})), "fields['y']", "is not a type", "float | None"),
    (lambda: Event(**event(fields={"at": int, "y": None})), "fields['y']", "None is not a type", "float | None"),
    (lambda: Event(**event(time="moment")), "time", "no field 'moment'", "name one of who, at"),
    (lambda: Event(**event(fields={"who": str, "at": Field(int, default=5)})), "fields['at']", "has no default", "leave default= out"),
    (lambda: Event(**event(earliest="1960")), "earliest", "'1960' is no day", "1900-01-01"),
    (lambda: Event(**event(empty="keep")), "empty", "says nothing about records without a value", 'empty="refuse"'),
    (lambda: Event(**event(id="key")), "id", "no field 'key'", "name one of who, at"),
    (lambda: Event(**event(time="x")), "time", "'x' must be int (epoch ms) or str (RFC 3339)", "change the field's type"),
    (lambda: Event(**event(time="maybe")), "time", "never null", "change the field's type"),
    (lambda: Event(**event(future="soon")), "future", "'soon' is not a duration", '"5m"'),
    (lambda: Event(**event(future=5)), "future", "Event: future is 5", "give text"),
    (lambda: Event(**event(description=None)), "description", "Event: description is None", "give text"),
    (lambda: Event(**event(description="\ud800")), "description", "Event: description is '\\ud800'", "give text"),
    (lambda: Event(**event(partitions=True)), "partitions", "Event: partitions is True", "give a whole number"),
    (lambda: Event(**event(partitions=4.0)), "partitions", "Event: partitions is 4.0", "give a whole number"),
    (lambda: FeatureView(**view(dedupe=8.0)), "dedupe", "dedupe is 8.0", "a number of ids"),
    (lambda: FeatureView(**view(tiles=None)), "tiles", "FeatureView: tiles is None", "give a dict of texts"),
    (lambda: FeatureView(**view(windows="1h")), "windows", "FeatureView: windows is '1h'", "give a list of texts"),
    (lambda: FeatureView(**view(count(name=5))), "name", "FeatureView 'v': count(): name is 5", "give text"),  # type: ignore[arg-type]
    (lambda: Outcome(GOOD, "n", "who", absent=10**400), "absent", "Outcome: absent is 1000", "give a number, or the text"),
    (lambda: Outcome(GOOD, "n", "who", absent=float("nan")), "absent", "Outcome: absent is nan", "give a number, or the text"),
    (lambda: Event(**event(extra="drop")), "extra", "'drop' says nothing about undeclared fields", 'extra="refuse"'),
    (lambda: Event(**event(where="x > 1")), "where", "unexpected keyword argument 'where'", "its arguments are name, fields, time"),
    (lambda: FeatureView(**view(where=5)), "where", "FeatureView: where is 5", "give text"),
    (lambda: FeatureView(**view(where="z > 1")), "where", "has no field 'z'", "write a condition on the event's fields"),
    (lambda: FeatureView(**view(where="")), "where", "'' is not an expression", "write a condition"),
    (lambda: FeatureView(**view(where="x + 1")), "where", "'x + 1' is a number, no condition", 'where="amount > 0"'),
    (lambda: FeatureView(**view(where="word")), "where", "'word' is text, no condition", "where=\"kind == 'a'\""),
    (lambda: FeatureView(**view(erase=True)), "erase", "FeatureView: erase is True", "give text"),
    (lambda: FeatureView(**view(erase="z")), "erase", "has no field 'z'", "write a condition on the event's fields"),
    (lambda: FeatureView(**view(erase="x")), "erase", "'x' is a number, no condition", 'erase="amount > 0"'),
    (
        lambda: FeatureView(**view(columns={}, served=())),
        "columns",
        "unexpected keyword argument 'columns'",
        "its arguments are name, source",
    ),
    (lambda: Entity("who", fields="word"), "fields", "unexpected keyword argument 'fields'", "its arguments are name, field"),  # type: ignore[call-arg]
    (lambda: Entity("who", field=["word"]), "field", "['word'] are not several fields", 'field=["shop", "currency"]'),
    (lambda: Entity("the origin"), "name", "'the origin' is not a usable name", "underscores"),
    (lambda: FeatureView(**view(name="a.b")), "name", "'a.b' is not a usable name", "underscores"),
    (lambda: FeatureView(**view(source="good")), "source", "'good' is not an Event", "pass the Event object"),
    (lambda: FeatureView(**view(partitions=-1)), "partitions", "-1 partitions", "at least 1"),
    (lambda: FeatureView(**view(entity=5)), "entity", "5 is not an Entity", "name a field"),
    (lambda: FeatureView(**view(entity="the who")), "entity", "'the who' is not a usable name", "underscores"),
    (lambda: FeatureView(**view(entity="whom")), "entity", "no field 'whom'", "name one of who, at"),
    (lambda: FeatureView(**view(entity=Entity("who", field="whom"))), "entity", "no field 'whom'", "name one of who"),
    (lambda: FeatureView(**view(entity="x")), "entity", "'x' must be str or int", "choose another"),
    (lambda: FeatureView(**view(features=[])), "features", "serves nothing", "add count()"),
    (lambda: FeatureView(**view(features=count())), "features", "without a list", "add count()"),
    (lambda: FeatureView(**view(tile="5 minutes")), "tile", "'5 minutes' is not a duration", '"5m"'),
    (lambda: FeatureView(**view(mean("x"), mean("X"), source=BOTH)), "features", "fields differ only in case: X, x", "fold one of them"),
    (lambda: FeatureView(**view(dedupe=256)), "dedupe", "256 is out of range", "between 0 and 255"),
    (lambda: FeatureView(**view(dedupe="25h")), "dedupe", "25h is longer than 1d", "in memory"),
    (lambda: FeatureView(**view(dedupe="often")), "dedupe", "'often' is not a duration", "5m"),
    (lambda: FeatureView(**view(dedupe=-1)), "dedupe", "-1 is out of range", "between 0 and 255"),
    (lambda: FeatureView(**view(ttl="never")), "ttl", "'never' is not a duration", '"24h"'),
    (lambda: FeatureView(**view(last_k("x", 0))), "features", "n is 0; keep between 1 and 100 values", "correct"),
    (lambda: FeatureView(**view(last_k("word", 2))), "features", "'word' is text", "aggregate a number"),
    (
        lambda: FeatureView(**view(distinct("word"), windows=["60d"], tile="10m", tiles={"60d": "10m"})),
        "features",
        "17 MiB",
        "longer tiles",
    ),
    (lambda: FeatureView(**view(ahead="0s", windows=["1h"])), "ahead", "'0s' is not a duration", '"24h"'),
    (lambda: FeatureView(**view(ahead="61m", windows=["1h"])), "ahead", "61m is further than 1h", "raise future="),
    (lambda: FeatureView(**view(ahead="1h")), "ahead", "'count' is of the entity's whole life", "give the feature a window"),
    (
        lambda: FeatureView(**view(ahead="1h", windows=["9s"], tiles={"9s": "3ms"})),
        "ahead",
        "more than 10000 tiles of 3ms",
        "choose longer tiles",
    ),
    (lambda: FeatureView(**view("mean(x)")), "features", "'mean(x)' is not an aggregate", "write count()"),
    (lambda: FeatureView(**view(Mean())), "features", "mean() needs a field", 'write mean("field")'),
    (lambda: FeatureView(**view(mean("z"))), "features", "has no field 'z'; it has at, flag", "a condition"),
    (lambda: FeatureView(**view(rate("z > 1", name="r"))), "features", "has no field 'z'", "a condition"),
    (lambda: FeatureView(**view(rate("x >", name="r"))), "features", "'x >' is not an expression", "a condition"),
    (lambda: FeatureView(**view(rate("1 > 0", name="r"))), "features", "names no field", "a condition"),
    (lambda: FeatureView(**view(rate("round(x) > 0", name="r"))), "features", "'round(x)' may not stand in a condition", "a condition"),
    (lambda: FeatureView(**view(rate("word > 5", name="r"))), "features", "mixes text and numbers", "a condition"),
    (lambda: FeatureView(**view(mean("word"))), "features", "'word' is text", "aggregate a number"),
    (lambda: FeatureView(**view(LastText(column="x"))), "features", "last('x'): 'x' is no text", "name a field of str"),
    (lambda: FeatureView(**view(LastText(column="x > 1", name="r"))), "features", "'x > 1' is no text", "name a field of str"),
    (lambda: FeatureView(**view(max("word"))), "features", "max('word'): 'word' is text", "of a text there are last('word'), first"),
    (lambda: FeatureView(**view(max("word"))), "features", "max('word'): 'word' is text", "rate(\"word == 'x'\", name"),
    (lambda: FeatureView(**view(rate("x", name="r"))), "features", "rate('x'): 'x' is a number, no condition", 'rate("x > 0"'),
    (lambda: FeatureView(**view(rate("flag and n", name="r"))), "features", "is a number, no condition", 'rate("(flag and n) > 0"'),
    (lambda: FeatureView(**view(rate("x > 1"))), "features", "rate('x > 1') needs a name", 'name="..."'),
    (lambda: FeatureView(**view(mean("x", name="a b"))), "features", "needs a name", 'name="..."'),
    (lambda: FeatureView(**view(mean("x", name="é"))), "features", "'é' is not a usable name", "letters"),
    (lambda: FeatureView(**view(count(), count())), "features", "two features are called 'count'", "give one of them a name"),
    (lambda: FeatureView(**view(count(), windows=["1h", "1h"])), "features", "two features are called 'count_1h'", "a name"),
    (lambda: FeatureView(**view(windows=[])), "windows", "no feature has a window", "leave it out"),
    (lambda: FeatureView(**view(windows=["1 hour"])), "windows", "'1 hour' is not a duration", '"24h"'),
    (lambda: FeatureView(**view(windows=["0h"])), "windows", "'0h' is not a duration", '"24h"'),
    (lambda: FeatureView(**view(windows=["7m"])), "windows", "7m is not a whole number of 5m tiles", 'tiles={"7m"'),
    (lambda: FeatureView(**view(windows=["1h"], tile="5")), "tile", "'5' is not a duration", '"5m"'),
    (lambda: FeatureView(**view(windows=["1h"], tiles={"1h": "5"})), "tiles", "'5' is not a duration", '"5m"'),
    (lambda: FeatureView(**view(windows=["1h"], tiles={"2h": "5m"})), "tiles", "there is no window '2h'", "name one of 1h"),
    (lambda: FeatureView(**view(windows=["30d"], tiles={"30d": "1m"})), "tiles", "more than 10000 tiles of 1m", "choose longer tiles"),
    (lambda: VIEW.select("count"), "select", "has no feature 'count'", "choose among count_1h, mean_x_1h"),
    (lambda: VIEW.select(*[]), "select", "nothing is selected", "choose among count_1h"),
    (lambda: Request("a b"), "name", "'a b' is not a usable name", "underscores"),
    (lambda: Request("a", list), "type", "is not a type", "float, int, bool or str"),
    (lambda: Outcome("good", "x", "who"), "source", "'good' is not an Event", "the Event object"),  # type: ignore[arg-type]
    (lambda: Outcome(GOOD, "x", "who", within="1y"), "within", "'1y' is not a duration", '"7d"'),
    (lambda: Outcome(GOOD, "x", "whom"), "subject", "no field 'whom'", "name one of who"),
    (lambda: Outcome(GOOD, "z > 1", "who"), "value", "no field 'z'", "a condition"),
    (lambda: Outcome(GOOD, "n", "who", absent="none"), "absent", "'none' is no value of 'n'", "write a number"),
    (lambda: Outcome(GOOD, "word", "who", absent=0), "absent", "0 is no value of 'word'", "write a text"),
    (lambda: Outcome(GOOD, "word", "who", absent="c", classes=["a", "b"]), "absent", "'c' is none of the classes", "one of 'a', 'b'"),
    (lambda: Outcome(GOOD, "n", "who", classes=[1, 2.5]), "classes", "Outcome: classes is [1, 2.5]", "a list of texts or"),  # type: ignore[list-item]
    (lambda: Outcome(GOOD, "n > 1", "who", classes=[0, 1]), "classes", "'n > 1' is no field that has classes", "leave classes out"),
    (lambda: Outcome(GOOD, "word", "who", classes=["a", 2]), "classes", "2 is no class of 'word'", "write texts"),
    (lambda: Outcome(GOOD, "n", "who", classes=["a", 2]), "classes", "'a' is no class of 'n'", "write whole numbers"),
    (lambda: Outcome(GOOD, "n", "who", classes=[2]), "classes", "there are 1, 1 different", "name 2 to 100, each once"),
    (lambda: Outcome(GOOD, "n", "who", classes=[2, 2, 3]), "classes", "there are 3, 2 different", "name 2 to 100, each once"),
    (lambda: Outcome(GOOD, "n", "who", classes=[*range(101)]), "classes", "there are 101, 101 different", "name 2 to 100, each once"),
    (lambda: Outcome(GOOD, "n > 1", "who", absent=2), "absent", "2.0 is neither 0 nor 1, as 'n > 1' is", "write 0 or 1"),
    (lambda: Model(**model(name="my model")), "name", "'my model' is not a usable name", "underscores"),
    (lambda: Model(**model(inputs=[LISTS])), "inputs", "last_2_x of view 'lists' is a list of numbers", "lists.select('count')"),
    (lambda: Model(**model(inputs=[LISTS.select("last_2_x")])), "inputs", "last_2_x of view 'lists' is a list", "select the others"),
    (lambda: Model(**model(on="asked")), "on", "'asked' is not an Event", "pass an Event"),
    (lambda: Model(**model(outcome="x > 1")), "outcome", "'x > 1' is not an Outcome", "pass an Outcome"),
    (lambda: Model(**model(at="then")), "at", "no field 'then'", "add it to the event"),
    (lambda: Model(**model(at="x")), "at", "'x' must be int", "change the field's type"),
    (lambda: Model(**model(subject="whom")), "subject", "no field 'whom'", "add it to the event"),
    (lambda: Model(**model(inputs=[])), "inputs", "without inputs", "add feature views"),
    (
        lambda: Model(**model(engine="python", inputs=[Words("who")])),
        "engine",
        "a worker is not given 'who', which is taken whole",
        'leave engine="python" out, or this input',
    ),
    (lambda: Model(**model(engine="rust")), "engine", "'rust' serves no model", 'write "onnx" or "python"'),
    (lambda: Model(**model(on_missing="shrug")), "on_missing", "'shrug' says nothing about missing inputs", '"refuse"'),
    (lambda: Model(**model(training="fast")), "training", "'fast' is no Training", "training=Training(...)"),
    (
        lambda: Model(**model(training=Training(segments=["whoo"]))),
        "training",
        "segment 'whoo' is no field of requests or input",
        "did you mean who?",
    ),
    (lambda: Model(**model(training=Training(weights="wait"))), "training", "weight 'wait' is no field of requests", "name one of"),
    (lambda: Model(**model(training=Training(trusted=["who"]))), "training", "trusted 'who' is no input", "name one of"),
    (lambda: Model(**model(training=Training(split=ByGroup("whoo")))), "training", "group 'whoo' is no field", "did you mean who?"),
    (lambda: Model(**model(retrain="weekly")), "retrain", "'weekly' is no Retrain", "retrain=Retrain(...)"),
    (lambda: Model(**model(retrain=Retrain(), pipeline=no_pipeline)), "retrain", "without a pipeline", "leave retrain out"),
    (lambda: Model(**model(retrain=Retrain(cluster="whoo"))), "retrain", "'whoo' is no field that requests give", "did you mean who?"),
    (lambda: Model(**model(online="always")), "online", "'always' is no Online", "online=Online(...)"),
    (lambda: Model(**model(online=Online())), "online", "served by its own pipeline", 'engine="python"'),
    (lambda: Model(**model(online=Online(), engine="python", pipeline=no_pipeline)), "online", "cannot learn", "a pipeline of river"),
    (
        lambda: Model(**model(online=Online(), engine="python", retrain=Retrain())),
        "online",
        "not trained again by itself",
        "leave online or",
    ),
    (
        lambda: Model(**model(online=Online(), engine="python", training=Training(search=Search(dict)))),
        "online",
        "without search",
        "leave search",
    ),
    (lambda: Model(**model(online=Online(cluster="whoo"), engine="python")), "online", "'whoo' is no field", "did you mean who?"),
    (lambda: Online(every=0), "every", "0 is not above 0", "above 0"),
    (lambda: Online(budget=0.9), "budget", "a budget of 0.9", "such as 0.05"),
    (lambda: Retrain(on=["drift", "mood"]), "on", "'mood' begins no run", "write some of drift"),  # type: ignore[list-item]
    (lambda: Retrain(every="monthly"), "every", "monthly", "5m"),
    (lambda: Retrain(loss="auc"), "loss", "'auc' is no loss", "write one of brier"),  # type: ignore[arg-type]
    (lambda: Retrain(budget=0.9), "budget", "a budget of 0.9", "such as 0.05"),
    (lambda: Retrain(steps=(0.5, 0.25)), "steps", "the shares (0.5, 0.25)", "growing shares"),
    (lambda: Retrain(rows=0), "rows", "0 is not above 0", "above 0"),
    (lambda: Retrain(least=100, most=50), "most", "50 outcomes are fewer than the least, 100", "write more"),
    (lambda: Training(split="time"), "split", "'time' is no split", "tm.ByTime()"),  # type: ignore[arg-type]
    (lambda: Training(split=ByTime(holdout=1.5)), "split", "a holdout of 1.5", "such as 0.2"),
    (lambda: Training(split=RollingOrigin(0)), "split", "0 folds", "write 1 or more"),
    (lambda: Training(metrics={"auc": float}), "metrics", "'auc' is a metric of tidemill", "names of your own"),  # type: ignore[dict-item]
    (lambda: Training(metrics={"cost": 3}), "metrics", "3 cannot be called", "give functions"),  # type: ignore[dict-item]
    (lambda: Training(search=Search(dict, trials=0)), "search", "needs a function as space", "correct the Search"),
    (lambda: Model(**model(pipeline="pipe")), "pipeline", "'pipe' cannot be called", "pass the function itself"),
    (lambda: Model(**model(inputs=[Request("distance")])), "inputs", "no field 'distance'", "add it to the event"),
    (lambda: Model(**model(on=Event("bare", {"at": int, "id": str}, time="at"), subject="id")), "inputs", "no field 'who'", "add it"),
    (
        lambda: Model(**model(inputs=[Request("who")])),
        "inputs",
        "'who' of event 'asked' is str, and the request is to give float",
        "Request('who', str)",
    ),
    (lambda: Model(**model(inputs=[Words("n")])), "inputs", "'n' of event 'asked' is no text", "as str"),
    (lambda: Model(**model(inputs=[VIEW, Words("who")])), "inputs", "'who' is the name of something else", "rename the field"),
    (lambda: Tensor("word", shape=()), "shape", "() is no shape", "shape=(28, 28)"),
    (lambda: Tensor("word", shape=(300, 300)), "shape", "(300, 300) is no shape of 1 to 65,536", "shape=(28, 28)"),
    (lambda: Tensor("word", shape=6), "shape", "6 is no shape", "shape=(28, 28)"),  # type: ignore[arg-type]
    (lambda: Model(**model(inputs=["view"])), "inputs", "'view' is not an input", "pass a FeatureView"),
    (lambda: Model(**model(inputs=[VIEW, VIEW.select("count_1h")])), "inputs", "named twice", "remove one"),
    (
        lambda: gathered(a=Event("a", FIELDS, time="at", topic="t"), b=Event("b", FIELDS, time="at", topic="t")),
        "type",
        "nothing says which is which",
        "a topic of its own",
    ),
    (
        lambda: gathered(a=SHARED, b=Event(**event(**TYPED, partitions=2))),
        "partitions",
        "share topic 't', and partitions is",
        "the same of both",
    ),
    (lambda: gathered(a=SHARED, b=Event(**event(**TYPED))), "type", "is already the type of event", "fields of both"),
    (lambda: Event(**event(type=Type("", field="type"))), "type", "'' is no type", "whole number"),
    (lambda: Event(**event(type=Type(-1, field="type"))), "type", "-1 is no type", "whole number"),
    (lambda: Event(**event(type=Type("A"))), "type", "lies in a header or in a field", "one of header= and field="),
    (lambda: Event(**event(type=Type("A", header=""))), "type", "'' is no header", "event-type"),
    (lambda: Event(**event(type=Type(3, header="x"))), "type", "3 in a header", "as text"),
    (lambda: Event(**event(type=Type("A", field=[]))), "type", "[] is no path", '["meta", "type"]'),
    (
        lambda: Event(**event(type=Type("A", field="type"), extra="refuse")),
        "extra",
        "the type lies in type, which is not declared",
        "as a field too",
    ),
    (lambda: Event(**event(envelope="avro")), "envelope", "'avro' is no envelope", 'envelope="debezium"'),
    (lambda: Event(**event(deletes="erase")), "deletes", "'erase' says nothing about deleted rows", 'deletes="keep"'),
    (lambda: Event(**event(deletes="keep")), "deletes", "only a change of a database's row", 'envelope="debezium"'),
    (lambda: Event(**event(envelope="debezium", extra="refuse")), "extra", "every change has fields that are not declared", "leave"),
    (lambda: gathered(v=FeatureView("v", CHANGED, "who", [count()], erase="x > 1 and gone")), "erase", "passes deleted rows over", "keep"),
    (lambda: gathered(a=Event(**event()), b=Event(**event(topic="t"))), "name", "Event 'e' is declared twice (also at", "another name"),
    (lambda: gathered(PROJECT="my project", a=GOOD), "PROJECT", "'my project' is not a usable name", "underscores"),
    (lambda: gathered(PROJECT="shop", a=Event(**event(topic="shop.outcomes"))), "topic", "one of the project's own", "another topic"),
]


def raised(declare: Callable[[], Any]) -> DeclarationError:
    """The error of a mistaken declaration."""
    with pytest.raises(DeclarationError) as caught:
        declare()
    return caught.value


@pytest.mark.parametrize(("declare", "field", "cause", "mend"), CASES)
def test_a_mistake_is_named_with_place_and_mend(declare: FunctionType, field: str, cause: str, mend: str) -> None:
    """The message starts with file:line of the declaration and the argument, then says what is wrong and what to write instead."""
    error = raised(declare)
    place = f"{__file__}:{declare.__code__.co_firstlineno}"
    if field == "PROJECT":
        place = "project"
    assert (error.where, error.field) == (place, field)
    assert str(error).startswith(f"{place}: {field}: ")
    assert cause in error.message
    assert mend in error.mend
    assert str(error) == f"{error.message}; {error.mend}"


@pytest.mark.parametrize(
    ("declare", "cause", "mend"),
    [
        (lambda: Entity("who", "word"), "too many positional arguments", "for a key of several"),  # type: ignore[call-arg]
        (lambda: Event("e", FIELDS, "at", "who"), "too many positional arguments", "its arguments are name, fields, time, id"),  # type: ignore[call-arg]
        (lambda: FeatureView("v", GOOD, "who", [count()], ["1h"]), "too many positional arguments", "windows"),  # type: ignore[call-arg]
        (lambda: Selection(VIEW, ("count_1h",), "p.py:1"), "too many positional arguments", "view, names"),  # type: ignore[call-arg]
        (lambda: Event("e", FIELDS), "missing a required argument: 'time'", "its arguments are name, fields, time"),  # type: ignore[call-arg]
    ],
)
def test_an_argument_needs_its_name_and_a_needed_one_is_missed(declare: FunctionType, cause: str, mend: str) -> None:
    """Two names for an Entity are no composite key; a value by place is refused where a person could mean something else by it."""
    error = raised(declare)
    assert (error.where, error.field) == (f"{__file__}:{declare.__code__.co_firstlineno}", None)
    assert cause in error.message
    assert mend in error.mend


@pytest.mark.parametrize("kind", [Entity, Event, FeatureView, Model, Outcome, Recording, Request, Selection])
def test_what_a_declaration_finds_out_itself_is_no_argument(kind: type) -> None:
    """Place, columns and plan of a declaration cannot be given, whatever it is."""
    assert not {"declared_at", "condition", "column", "columns", "served", "selections"} & set(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]


def refusals() -> set[tuple[str, int, int]]:
    """Every place in the sources that refuses a declaration: file, first and last line."""
    home = Path(tidemill.__file__).parent
    places = set()
    for path in [*sorted((home / "declarations").glob("*.py")), home / "names.py", home / "streams" / "topics.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            fails = isinstance(node, ast.Call) and ast.unparse(node.func) == "self._fail"
            raises = isinstance(node, ast.Raise) and "DeclarationError(" in ast.unparse(node)
            if isinstance(node, ast.Call | ast.Raise) and (fails or raises):
                places.add((str(path), node.lineno, node.end_lineno or node.lineno))
    return places


def test_every_refusal_has_a_case() -> None:
    """No refusal in the sources is without a case above."""
    frames = {(frame.filename, frame.lineno or 0) for declare, *_ in CASES for frame in traceback.extract_tb(raised(declare).__traceback__)}
    found = refusals()
    assert len(found) > 30
    missed = {place for place in found if not any(place[0] == name and place[1] <= line <= place[2] for name, line in frames)}
    assert missed == set()


def test_default_names_are_not_mistakes() -> None:
    """What looks odd but is meant: a text column may be counted, and a bool may be aggregated."""
    declared = FeatureView("v", GOOD, "who", [count("word"), max("flag"), rate("word == 'a' or flag", name="r"), mean("n")])
    assert [feature.name for feature in declared.served] == ["count_word", "max_flag", "r", "mean_n"]
