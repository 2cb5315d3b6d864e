"""What the processes of a run tell the service, as their last line of JSON or, while one learns, as one of many. The service imports this, and nothing that trains."""

from __future__ import annotations

import msgspec

from tidemill_retraining.jobs import Ended, last_word


class Rehearsed(msgspec.Struct, frozen=True):
    """What was seen. `champion_ms`, `version_ms`: the median time of an answer; `wrong`: why the version cannot serve, empty if it can; `unlike`: why the champion could not
    be timed."""

    version_ms: float = 0.0
    champion_ms: float = 0.0
    wrong: str = ""
    unlike: str = ""


def rehearsed(ended: Ended) -> Rehearsed:
    """What a rehearsal found; one that did not end well is wrong."""
    return last_word(ended, Rehearsed, lambda why: Rehearsed(wrong=why))


class MadeSnapshot(msgspec.Struct, frozen=True):
    """A version of a snapshot (`version`: "" without one), and what its rehearsal found."""

    version: str
    rehearsed: Rehearsed


class LearnerTold(msgspec.Struct, frozen=True, tag=True):
    """How far a learner is. `kept`: outcomes in the newest snapshot; `learned`: with those since; `left_out`: those that could not be learned; `waits`: for what;
    `stopped`: why it learns no more."""

    kept: int
    learned: int
    left_out: int
    waits: str = ""
    stopped: str = ""
