"""The features of many requests at their moments, from the archive as training reads them, each with the status that an answer would show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidemill.archive.view_rows import view_rows
from tidemill.declarations import FeatureView
from tidemill.kernel.served import Served, serve
from tidemill.offline.store import OfflineStore
from tidemill.training.asked import Questions, one_by_one, part_of
from tidemill.training.sharing import Sharing
from tidemill.training.spine import Archived, view_fields


class Requests(NamedTuple):
    """`keys`: for each view, the key of each request's entity (None: no entity); `used`: for each view, the places of the features that are
    asked for; `times_ms`: the moments."""

    keys: Sequence[Sequence[bytes | None]]
    used: Sequence[Sequence[int]]
    times_ms: npt.NDArray[np.int64]


class SeenView:
    """What each request is served of one view. `values`: shape (requests, features), texts as such."""

    def __init__(self, view: FeatureView, values: npt.NDArray[Any], others: dict[int, Served]) -> None:
        self.values = values
        self._others = others
        self._whole = serve(view, None, 0)._replace(statuses=["PRESENT"] * len(view.served))

    def served(self, row: int) -> Served:
        """The features of one request with their statuses."""
        if row in self._others:
            return self._others[row]
        values = self.values[row].tolist()
        texts = {i: value for i, value in enumerate(values) if isinstance(value, str)}
        return self._whole._replace(values=[float("nan") if i in texts else value for i, value in enumerate(values)], others=texts)


def seen_by(
    store: OfflineStore, spec: str | None, views: Sequence[FeatureView], requests: Requests, note: Callable[[str], None]
) -> list[SeenView]:
    """What the requests see of each view: every event that became known up to the request's moment.

    `spec`: the project's folder, file or module, so that other processes can load it and help (None: this process does all).
    """
    archived = Archived(store, view_fields(tuple(views)), int(requests.times_ms.max()) + 1)
    found = []
    with Sharing(spec) as sharing:
        for view, keys, used in zip(views, requests.keys, requests.used, strict=True):
            note(f"reading view {view.name}")
            found.append(_seen(view, archived.events(view.source), keys, used, requests.times_ms, sharing))
    return found


def _seen(
    view: FeatureView,
    events: pa.Table,
    keys: Sequence[bytes | None],
    used: Sequence[int],
    times_ms: npt.NDArray[np.int64],
    sharing: Sharing,
) -> SeenView:
    texts = pa.array([None if key is None else key.decode() for key in keys], pa.string())
    rows, _ = view_rows(view, events, texts.unique().drop_null())
    questions = Questions(texts, times_ms, np.full(len(texts), -1))
    values = sharing.features(view, rows, questions)
    asked = values[:, list(used)]
    missing = np.asarray(asked != asked, bool).any(axis=1)  # noqa: PLR0124 - NaN, also among texts
    return SeenView(view, values, _statuses(view, rows, questions, np.flatnonzero(missing)))


def _statuses(view: FeatureView, rows: pa.Table, questions: Questions, places: npt.NDArray[np.int64]) -> dict[int, Served]:
    """All that is served to those requests which lack a value: only there can a status say more than that the value is there."""
    nothing = serve(view, None, 0)
    found: dict[int, Served] = dict.fromkeys(places.tolist(), nothing)
    if len(places):
        numbers = places.tolist()
        one_by_one(view, *part_of(rows, questions, places), lambda place, served: found.__setitem__(numbers[place], served))
    return found
