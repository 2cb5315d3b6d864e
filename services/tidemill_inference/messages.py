"""Requests and answers of POST /predict/{model}, as JSON. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tidemill.errors import BadRequest, TidemillError
from tidemill.models.answers import chosen
from tidemill.runtime.routes import decode_body
from tidemill.timestamps import parse_time_ms

MAX_INSTANCES = 1_000
MAX_EXPLAINED = 100
MAX_ID_LENGTH = 200
_EXAMPLE = 'send {"entities": {...}} or {"instances": [{"entities": {...}}, ...]}'


class InstanceBody(msgspec.Struct, forbid_unknown_fields=True):
    """One thing to predict. `entities`: the views' entities and the Request values by name; `subject`: whom an outcome will be about.

    `id`: the id of the prediction, for requests that may be repeated; `time`: the moment asked for (epoch ms or RFC 3339), by default now.
    """

    entities: dict[str, Any]
    subject: str | int | None = None
    id: str | None = None
    time: int | str | None = None


class PredictBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /predict/{model}: the fields of one instance, or `instances`. `features`: whether the answer shows them; `explain`:
    whether it says from which inputs it came."""

    entities: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    instances: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    subject: str | int | None = None
    id: str | None = None
    time: int | str | None = None
    features: bool = True
    explain: bool = False


class Instance(NamedTuple):
    """One thing to predict, checked. `own_id`, `own_time`: whether the client gave them."""

    id: str
    subject: str | None
    time_ms: int
    given: dict[str, Any]
    own_id: bool = False
    own_time: bool = False


class PredictRequest(NamedTuple):
    """A checked body: an error stands in the place of an instance that is wrong."""

    instances: list[Instance | TidemillError]
    batch: bool
    features: bool
    explain: bool = False


class FeatureShown(msgspec.Struct):
    """One input as the answer shows it."""

    value: Any
    status: str
    age_seconds: float | None


class PredictionAnswer(NamedTuple):
    """One prediction to answer. `features`: None when the answer does not show them; `degraded`: the inputs that cannot be known, and why;
    `ignored`: the values of the request that the model does not take; `probabilities`: of each of several classes; `explanation`: if it was
    asked for."""

    id: str
    model: str
    version: str
    time_ms: int
    output_name: str
    output: float
    features: dict[str, FeatureShown] | None
    degraded: dict[str, str] = {}
    ignored: list[str] = []
    probabilities: Mapping[str, float] = {}
    explanation: msgspec.Struct | None = None


_decode = msgspec.json.Decoder(PredictBody).decode
_decode_instance = msgspec.json.Decoder(InstanceBody).decode
_encode = msgspec.json.Encoder().encode  # NaN becomes null


def parse_predict(body: bytes, now_ms: int) -> PredictRequest:
    """The request in a body. Raises BadRequest when the whole body or its only instance is wrong."""
    parsed = decode_body(_decode, body, _EXAMPLE)
    if isinstance(parsed.instances, msgspec.UnsetType):
        if isinstance(parsed.entities, msgspec.UnsetType):
            raise BadRequest("entities is missing", mend=_EXAMPLE)
        instance = InstanceBody(parsed.entities, parsed.subject, parsed.id, parsed.time)
        return PredictRequest([_checked(instance, now_ms)], batch=False, features=parsed.features, explain=parsed.explain)
    if not isinstance(parsed.entities, msgspec.UnsetType) or (parsed.subject, parsed.id, parsed.time) != (None, None, None):
        raise BadRequest("instances cannot stand beside entities, subject, id or time", mend="put them into the instances")
    if not 0 < len(parsed.instances) <= MAX_INSTANCES:
        raise BadRequest(f"{len(parsed.instances)} instances; 1 to {MAX_INSTANCES} are possible", mend="send several requests")
    if parsed.explain and len(parsed.instances) > MAX_EXPLAINED:
        raise BadRequest(f"{len(parsed.instances)} instances with explain; 1 to {MAX_EXPLAINED} are possible", mend="send several requests")
    instances = [_instance(raw, now_ms) for raw in parsed.instances]
    return PredictRequest(instances, batch=True, features=parsed.features, explain=parsed.explain)


def _instance(raw: msgspec.Raw, now_ms: int) -> Instance | TidemillError:
    try:
        return _checked(decode_body(_decode_instance, raw, _EXAMPLE), now_ms)
    except BadRequest as error:
        return error


def _checked(body: InstanceBody, now_ms: int) -> Instance:
    if body.id is not None and not 0 < len(body.id) <= MAX_ID_LENGTH:
        raise BadRequest(f"id has {len(body.id)} characters; 1 to {MAX_ID_LENGTH} are possible", mend="send a shorter id, or none")
    try:
        time_ms = now_ms if body.time is None else parse_time_ms(body.time)
    except ValueError as error:
        raise BadRequest(f"time: {error}", mend="send the moment of the prediction, or no time at all for now") from None
    subject = None if body.subject is None else str(body.subject)
    return Instance(body.id or new_id(now_ms), subject, time_ms, body.entities, body.id is not None, body.time is not None)


def new_id(now_ms: int) -> str:
    """A unique id of 32 hexadecimal digits: the time in ms, then 80 random bits, so that ids sort by time."""
    return f"{now_ms:012x}{os.urandom(10).hex()}"


def answer_body(request: PredictRequest, results: Sequence[PredictionAnswer | TidemillError]) -> bytes:
    """JSON of the answer; in a batch an error stands in the place of its instance, otherwise it is raised."""
    if request.batch:
        return _encode({"predictions": [_shown(result) for result in results]})
    (result,) = results
    if isinstance(result, TidemillError):
        raise result
    return _encode(_shown(result))


def _shown(result: PredictionAnswer | TidemillError) -> Mapping[str, Any]:
    if isinstance(result, TidemillError):
        return {"error": result.message, "mend": result.mend}
    shown: dict[str, Any] = {
        "prediction_id": result.id,
        "model": result.model,
        "version": result.version,
        "time": result.time_ms,
    }
    if result.probabilities:
        shown |= {"class": chosen(result.probabilities), result.output_name: result.probabilities}
    else:
        shown[result.output_name] = result.output
    if result.degraded:
        shown["degraded"] = result.degraded
    if result.ignored:
        shown["ignored"] = result.ignored
    if result.explanation is not None:
        shown["explanation"] = result.explanation
    if result.features is not None:
        shown["features"] = result.features
    return shown
