"""The small language of drifts: `FIELD:shift=2 after=60s`, `EVENT:lost`, `outcome:flip=0.3 until=5m`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from tidemill.declarations import Event
from tidemill.declarations.checks import did_you_mean
from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.errors import TidemillError

OUTCOME = "outcome"
"""The target of drifts of what becomes of questions, whichever event brings it."""


class Kind(NamedTuple):
    """A kind of drift. `of`: what it may change ("field", "event", "outcome"); `share`: whether its amount is one between 0 and 1; `usual`: its amount when
    none is given (None: one must be); `told`: what it does."""

    of: str
    share: bool
    usual: float | None
    told: str


KINDS = {
    "shift": Kind("field", False, None, "this is added to a number"),
    "scale": Kind("field", False, None, "a number is multiplied by this"),
    "unseen": Kind("field", True, 1.0, "this share of texts was never seen before"),
    "missing": Kind("field", True, 1.0, "this share has no value"),
    "lost": Kind("event", True, 1.0, "this share is not published: an outage of its source"),
    "late": Kind("event", False, None, "they are published so much later"),
    "flip": Kind("outcome", True, 1.0, "this share of outcomes is another one"),
    "rate": Kind("outcome", True, None, "this share of outcomes is true, where they are true or false"),
}
"""The kinds by their words; an outcome may be lost and late too, as its event."""

_EXAMPLE = "for example 'amount:shift=2 after=60s'"


@dataclass(frozen=True)
class Drift:
    """A drift: `target` as it was written, what it does and how much, from `after_ms` on, to `until_ms` (None: to the end). `late` has its amount in ms."""

    target: str
    kind: str
    amount: float
    after_ms: int = 0
    until_ms: int | None = None

    def holds(self, offset_ms: int) -> bool:
        """Whether it is there so long after the begin."""
        return self.after_ms <= offset_ms and (self.until_ms is None or offset_ms < self.until_ms)

    def is_of_field(self, event: Event, name: str) -> bool:
        """Whether it changes a field of an event: by the field's name alone, or after the event's and a dot."""
        return KINDS[self.kind].of == "field" and self.target in (name, f"{event.name}.{name}")

    def is_of_event(self, event: Event) -> bool:
        """Whether it holds back an event."""
        return self.target == event.name


def parse_drift(text: str, project: Project) -> Drift:
    """A drift as it is written on the command line. Raises TidemillError, which says what is meant instead."""
    head, *rest = text.split() or [""]
    target, colon, said = head.rpartition(":")
    kind, equals, amount = said.partition("=")
    if not colon or kind not in KINDS:
        raise _wrong(text, f"{said or head!r} is no drift", did_you_mean(kind, KINDS) or f"write one of {', '.join(KINDS)}; {_EXAMPLE}")
    when = dict(_moment(text, word) for word in rest)
    drift = Drift(target, kind, _amount(text, kind, amount if equals else None), when.get("after", 0), when.get("until"))
    if drift.until_ms is not None and drift.until_ms <= drift.after_ms:
        raise _wrong(text, "it ends before it begins", "let until= lie after after=")
    _check_target(text, drift, project)
    return drift


def _moment(text: str, word: str) -> tuple[str, int]:
    name, _, duration = word.partition("=")
    if name not in ("after", "until"):
        raise _wrong(text, f"{word!r} says nothing", "write after=60s and until=5m, each after a space")
    return name, _duration(text, duration)


def _duration(text: str, duration: str) -> int:
    try:
        return parse_ms(duration)
    except ValueError as error:
        raise _wrong(text, str(error), "") from None


def _amount(text: str, kind: str, amount: str | None) -> float:
    rule = KINDS[kind]
    if amount is None:
        if rule.usual is None:
            raise _wrong(text, f"{kind} needs an amount", f"write {kind}={'5m' if kind == 'late' else '0.5'}: {rule.told}")
        return rule.usual
    if kind == "late":
        return _duration(text, amount)
    found = float(amount) if re.fullmatch(r"-?[0-9]*\.?[0-9]+(e-?[0-9]+)?", amount) else math.nan
    if not math.isfinite(found) or (rule.share and not 0 <= found <= 1):
        raise _wrong(
            text, f"{amount!r} is no {'share' if rule.share else 'number'}", "write a share between 0 and 1" if rule.share else _EXAMPLE
        )
    return found


def _check_target(text: str, drift: Drift, project: Project) -> None:
    """Raises TidemillError unless the target is there, and the drift can change it."""
    of, target = KINDS[drift.kind].of, drift.target
    if target == OUTCOME:
        if of == "field":
            raise _wrong(text, f"{drift.kind} changes a field", "name the field of the outcome's event")
        if not project.models:
            raise _wrong(text, "the project has no model, so there is no outcome", "")
        if drift.kind == "rate" and not any(model.outcome.column.truth for model in project.models.values()):
            raise _wrong(text, "no outcome is a condition or a field of bool", "flip= changes classes, shift= the field of a number")
    elif of == "outcome":
        raise _wrong(text, f"{drift.kind} changes outcomes", f"write {OUTCOME}:{drift.kind}")
    elif of == "event":
        if target not in project.events:
            raise _wrong(
                text, f"there is no event {target!r}", did_you_mean(target, project.events) or f"name one of {', '.join(project.events)}"
            )
    else:
        _check_fields(text, drift, project)


def _check_fields(text: str, drift: Drift, project: Project) -> None:
    found = [(event, name) for event in project.events.values() for name in event.fields if drift.is_of_field(event, name)]
    if not found:
        names = [name for event in project.events.values() for name in event.fields]
        raise _wrong(
            text,
            f"there is no field {drift.target!r}",
            did_you_mean(drift.target, names) or f"name one of {', '.join(dict.fromkeys(names))}",
        )
    for event, name in found:
        kind, where = event.base_type(name), f"{name!r} of {event.name}"
        if name in (event.time, event.id):
            raise _wrong(text, f"{where} is its {'time' if name == event.time else 'id'}", "name another field; late= moves events")
        if drift.kind in ("shift", "scale") and kind not in (int, float):
            raise _wrong(text, f"{where} is no number", "unseen= and missing= change texts")
        if drift.kind == "unseen" and kind is not str:
            raise _wrong(text, f"{where} is no text", "shift= and scale= change numbers")
        if drift.kind == "missing" and not event.nullable(name):
            raise _wrong(
                text, f"{where} may not be null, so events without it would be refused", "declare it with `| None`, or name another field"
            )


def _wrong(text: str, message: str, mend: str) -> TidemillError:
    return TidemillError(f"--drift {text!r}: {message}", mend=mend)
