"""Compares results of logged predictions with SQL over the archived events that bring outcomes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.erasure import erased_positions
from tidemill.declarations import Model
from tidemill.offline.store import OfflineStore
from tidemill.proof.book import Breathe, waited_for
from tidemill.proof.verified import Verified, archive_reaching
from tidemill.verify.compare import Compared
from tidemill.verify.labels import outcome_fields
from tidemill.verify.results import check_results
from tidemill.verify.rows_of import rows_of

RESULTS = "results"
_NEAR = 1_000


class ResultsVerify:
    """Verifies results of one model. `since`: the number of the first result that its present declaration gave."""

    def __init__(self, model: Model, store: OfflineStore, since: int, wait_seconds: float, breathe: Breathe = lambda: None) -> None:
        self.model, self._store, self._since = model, store, since
        self._wait_seconds, self._breathe = wait_seconds, breathe

    def draw(self, most: int, draw: random.Random) -> list[dict[str, Any]]:
        """Some of the newest results, or of some from long ago. Raises OfflineUnavailable, TornTable."""
        snapshot = self._store.find(RESULTS)
        end = 0 if snapshot is None else snapshot.counter("seq")
        if snapshot is None or end <= self._since:
            return []
        begin = max(end - _NEAR, self._since) if draw.random() < 0.5 else draw.randrange(self._since, end)
        where = (pc.field("seq") >= begin) & (pc.field("seq") < begin + _NEAR) & (pc.field("model") == self.model.name)
        columns = ["seq", "prediction", "subject", "time", "known", "outcome", *({"label"} & set(snapshot.columns))]
        rows = snapshot.scan(columns, where)
        places = pa.array(draw.sample(range(len(rows)), min(most, len(rows))), pa.int64())  # of none Arrow would not know the type
        found: list[dict[str, Any]] = rows.take(places).to_pylist()
        return found

    def look(self, results: list[dict[str, Any]], ends: Mapping[int, int], kept_since_ms: int = 0) -> Verified:
        """Compares results with the archive, once it reaches `ends` of the outcome's topic: read those after the results.

        Raises OfflineUnavailable, TornTable.
        """
        outcome, report = self.model.outcome, Verified(Compared(f"{RESULTS}/{self.model.name}"))
        kept = [row for row in results if row["time"] >= kept_since_ms]
        report.left_out["forgotten"] += len(results) - len(kept)
        archive = (
            waited_for(partial(archive_reaching, self._store, outcome.source, ends), self._wait_seconds, self._breathe) if kept else None
        )
        if archive is None:
            report.left_out["lags"] += len(kept)
            return report
        subjects = {row["subject"] for row in kept}
        found = rows_of(archive, outcome.source, [outcome.subject], subjects, outcome_fields(self.model), self._breathe)
        compared = check_results(self.model, kept, found)
        if compared.differ and erased_positions(self._store, outcome.source):
            report.left_out["erased"] += len(kept)  # which of them were erased is not known by subject
        else:
            report.compared = compared
        return report
