"""Which events are questions, and which outcome answers which question. The prediction log's join (`services/tidemill_predlog/join.py`) follows
the same rule for its predictions.

An announcing event is a question (subject, time); a second publication of it (same id) is none. Several events may ask about one subject at
one time. A question's answer is the first outcome of its subject that became known after its time and at most `within_ms` later, never before.
An event that asks and answers answers earlier questions only, so never its own. Without an answer, `absent` is it once the wait is over, if
it is declared. A question of such a model has no answer at all before its wait is over: those that were answered soon would otherwise stand
for all of the newest ones.

Nothing that is known, or asked, at or after `until_ms` exists. The wait is over by the time of the events: `until_ms` is not after the newest. Subjects and ids are codes: equal numbers mean equal texts. Events stand in the
order in which they became known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.models import Wait

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NONE = -1
"""The code of an event without an id."""


class Announced(NamedTuple):
    """Announcing events. `ids`: `NONE` for an event without an id."""

    subjects: Ints
    at_ms: Ints
    known_ms: Ints
    ids: Ints


class Outcomes(NamedTuple):
    """Outcome events with a value. `ids`: `NONE` for an event without an id; `asks_ms`: the moments of their own questions (None: they ask
    none)."""

    subjects: Ints
    known_ms: Ints
    values: Floats
    ids: Ints
    asks_ms: Ints | None = None


def questions(announced: Announced, until_ms: int) -> Ints:
    """The places of the announcing events that are questions, in order of time, then of subject, then of known."""
    places = np.flatnonzero((announced.at_ms < until_ms) & (announced.known_ms < until_ms))
    places = places[first_publications(announced.ids[places])]
    return places[np.lexsort((announced.subjects[places], announced.at_ms[places]))]  # stable


def answers(subjects: Ints, at_ms: Ints, outcomes: Outcomes, wait: Wait, until_ms: int) -> Floats:
    """The answer of each question; NaN where there is none before `until_ms`."""
    counting = np.flatnonzero(outcomes.known_ms < until_ms)
    counting = counting[first_publications(outcomes.ids[counting])]
    counting = counting[np.lexsort((outcomes.known_ms[counting], outcomes.subjects[counting]))]
    known_ms = outcomes.known_ms[counting]
    moments = np.unique(np.concatenate([at_ms, known_ms]))  # a subject and the rank of a moment make one number, in order of both
    places = outcomes.subjects[counting] * len(moments) + np.searchsorted(moments, known_ms)
    first = np.searchsorted(places, subjects * len(moments) + np.searchsorted(moments, at_ms), "right")
    found = np.full(len(subjects), math.nan if wait.absent is None else wait.absent)
    there = np.flatnonzero(first < len(counting))
    at = first[there]
    while len(there):
        mine = (outcomes.subjects[counting][at] == subjects[there]) & (known_ms[at] <= at_ms[there] + wait.within_ms)
        later = np.full(len(at), True) if outcomes.asks_ms is None else outcomes.asks_ms[counting][at] > at_ms[there]
        found[there[mine & later]] = outcomes.values[counting][at[mine & later]]
        next_one = mine & ~later & (at + 1 < len(counting))
        there, at = there[next_one], at[next_one] + 1
    if wait.absent is not None:
        found[at_ms + wait.within_ms >= until_ms] = math.nan
    return found


def first_publications(ids: Ints) -> Ints:
    """The places of events that are not published again, in order."""
    _, first = np.unique(ids, return_index=True)
    return np.flatnonzero(np.isin(np.arange(len(ids)), first) | (ids == NONE))
