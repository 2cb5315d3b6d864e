"""Each rule of event time, switched off in turn, is missed by the properties of test_agreement: a check that cannot fail is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis.strategies import data
from tests.event_time import test_agreement
from tests.event_time.test_agreement import DIVISIONS, agree
from tests.event_time.world import VIEWS, streams

from tidemill.declarations.windows import Grid
from tidemill.kernel import recent
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import ID_BYTES, NEVER, EntityState, TileRows
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import Applied, ViewKernel, _Resolution
from tidemill.routing.router import _Route
from tidemill.streams.dead_letters import letter_of_refused
from tidemill_features.worker import Worker

EXAMPLES = 600
Patch = Callable[[pytest.MonkeyPatch], None]


def caught() -> bool:
    """Whether the property fails on some stream."""

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], derandomize=True, database=None)
    @given(streams(in_order=False, min_size=18), *DIVISIONS, data())
    def attempt(stream: Any, cuts: Any, cache_bytes: int, drawn: Any) -> None:
        agree(stream, cuts, cache_bytes, drawn)

    try:
        attempt()
    except (AssertionError, BaseExceptionGroup):
        return True
    return False


def horizon(patch: pytest.MonkeyPatch) -> None:
    """A waiting event makes events of the present late."""
    made = ViewKernel.__init__

    def init(self: ViewKernel, view: Any) -> None:
        made(self, view)
        self.horizon_ms -= view.ahead_ms or 0

    patch.setattr(ViewKernel, "__init__", init)


def kept(patch: pytest.MonkeyPatch) -> None:
    """A waiting event drops tiles that the present needs."""
    made = _Resolution.__init__

    def init(self: _Resolution, grid: Grid, features: Any, view: Any, extra: Any, nullable: Any) -> None:
        made(self, grid, features, view, extra, nullable)
        self.kept_tiles = grid.tiles(max(feature.window.reach_ms for feature in features))

    patch.setattr(_Resolution, "__init__", init)


def newest(patch: pytest.MonkeyPatch) -> None:
    """A waiting event keeps an entity from expiring, and makes one that has nothing yet be found."""
    patch.setattr(ViewKernel, "_newest_by", lambda self, time_ms, passed, tiles: time_ms)


def passed(patch: pytest.MonkeyPatch) -> None:
    """An entity whose old events are out of reach is forgotten as soon as an event waits."""
    patch.setattr(ViewKernel, "_let_pass", lambda self, state, index: None)


def unseen(patch: pytest.MonkeyPatch) -> None:
    """Readings see what still waits."""
    select = TileRows.select
    patch.setattr(TileRows, "select", lambda self, oldest, last: select(self, oldest, last if oldest == NEVER else 2**60))


def dedupe(patch: pytest.MonkeyPatch) -> None:
    """An id is skipped for ever."""

    fold = ViewKernel.apply

    def apply(self: ViewKernel, state: EntityState, time_ms: int, event_id: str | None, values: Any) -> Applied:
        before = state.ids
        outcome = fold(self, state, time_ms, event_id, values)
        if len(state.ids) == len(before) and state.ids != before:  # the oldest made room
            state.ids = before[:ID_BYTES] + state.ids
        return outcome

    patch.setattr(ViewKernel, "apply", apply)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    """A worker that begins anew does not read what the log had lately."""
    patch.setattr(Recent, "remember", lambda self, offset, entity, event_id: None)


def backwards(patch: pytest.MonkeyPatch) -> None:
    """The log's time goes back where a record became known before the one in front of it."""
    turn = Recent.turn

    def begin(self: Recent, known_ms: int, offset: int) -> None:
        turn(self, known_ms, offset)
        self.turn_ms = 0

    patch.setattr(Recent, "turn", begin)


def unparted(patch: pytest.MonkeyPatch) -> None:
    """An id is known in its own part of time and in the next one only."""
    patch.setattr(recent, "PARTS", 1)


def unsent(patch: pytest.MonkeyPatch) -> None:
    """What the fold refuses is lost."""

    async def nothing(*_: object) -> None:
        pass

    patch.setattr(Worker, "_send_refused", nothing)


def misplaced(patch: pytest.MonkeyPatch) -> None:
    """A letter names the place of the slice's first record."""

    def letter(view: Any, topic: str, partition: int, refused: Any, horizon_ms: int, raw: Any) -> Any:
        return letter_of_refused(view, topic, partition, refused, horizon_ms, raw._replace(offset=0))

    patch.setattr("tidemill_features.worker.letter_of_refused", letter)


def unrefused(patch: pytest.MonkeyPatch) -> None:
    """What lies too far ahead of a view is dropped without a letter."""
    patch.setattr(_Route, "too_far_ahead", lambda self, event, source: [])


def counted_late(patch: pytest.MonkeyPatch) -> None:
    """A duplicate is counted as late."""
    late = PartitionFold._late

    def note(self: PartitionFold, outcome: Any, *given: Any) -> bool:
        self._counts[2] += outcome.name == "DUPLICATE"
        return late(self, outcome, *given)

    patch.setattr(PartitionFold, "_late", note)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutate", [horizon, kept, newest, passed, unseen, dedupe, forgotten, backwards, unparted, unsent, misplaced, unrefused, counted_late]
)
def test_a_rule_switched_off_is_caught(mutate: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule less, and some stream ends otherwise than the reference says."""
    mutate(monkeypatch)
    monkeypatch.setattr(test_agreement, "KERNELS", {view.name: ViewKernel(view) for view in VIEWS})
    assert caught()
