"""Judging one window: which comparisons are made, and what is said when none can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tidemill.errors import ArtifactError
from tidemill.models.artifact import Manifest, stored_artifact
from tidemill.records import JudgementRecord, Watched
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill_drift.compare import Finding
from tidemill_drift.monitor import LEAST_ROWS, ResultRow, compare_predictions, compare_ranking, compare_results, left_out
from tidemill_drift.performance import LEAST_EACH
from tidemill_drift.windows import Closed

log = get_logger(__name__)

_COMPARE: dict[Watched, Any] = {"inputs": compare_predictions, "outcomes": compare_results, "ranking": compare_ranking}


class Judged(NamedTuple):
    """What comparisons found, and the judgement to be said (None: there was nothing to judge)."""

    findings: list[Finding]
    judgement: JudgementRecord | None


def few_rows(rows: Sequence[Any]) -> str:
    """What rows lack to be judged; empty when they can be."""
    return f"{len(rows)} of {LEAST_ROWS} rows" if len(rows) < LEAST_ROWS else ""


def few_of_each(rows: Sequence[ResultRow]) -> str:
    """What results lack for their order to be judged: rows, or one of the two outcomes."""
    positives = sum(not isinstance(row.outcome, str) and row.outcome > 0.5 for row in rows)
    rarer = min(positives, len(rows) - positives)
    return few_rows(rows) or (f"{rarer} of {LEAST_EACH} rows with the rarer outcome" if rarer < LEAST_EACH else "")


class Judge:
    """Judges windows by the manifests of the offline store."""

    def __init__(self, offline_root: str, budget: float) -> None:
        self._offline_root, self._budget = offline_root, budget
        self._manifests: dict[tuple[str, str], Manifest] = {}

    def judge(self, what: Watched, window: Closed[Any]) -> Judged:
        """All comparisons of one window. One that cannot be judged is logged and skipped: judging it again would fail again."""
        if what == "ranking" and window.gone:
            return Judged([], None)  # no probability of two outcomes, or a version that is gone, which the judgement of its outcomes says
        if what != "ranking":
            metrics.DRIFT_WINDOWS.labels(window.model).inc()
        if window.lacks:
            return self._unjudged(what, window, window.lacks)
        try:
            manifest = self._manifest(window.model, window.version)
            findings = list(_COMPARE[what](manifest, window.rows, self._budget, window.versions))
        except ArtifactError as error:
            log.error(
                "window not judged", model=window.model, version=window.version, start=window.start, reason=error.message, mend=error.mend
            )
            return Judged([], _record(what, window, why=error.message))
        except Exception as error:
            log.exception("window not judged", model=window.model, version=window.version, start=window.start, rows=len(window.rows))
            return Judged([], _record(what, window, why=f"{type(error).__name__}: {error}"))
        if not findings:
            return self._unjudged(what, window, f"fewer than {LEAST_ROWS} rows with the inputs of the version")
        return Judged(findings, _record(what, window, findings, left_out(manifest) if what == "inputs" else []))

    def unranked(self, version: tuple[str, str]) -> str:
        """Why the order of a version's outputs is not judged; empty when it answers with a probability."""
        try:
            output = self._manifest(*version).output
        except ArtifactError as error:
            return error.message
        return "" if output == "probability" else f"it answers with a {output}"

    def _unjudged(self, what: Watched, window: Closed[Any], why: str) -> Judged:
        log.info(
            "window not judged", model=window.model, version=window.version, what=what, start=window.start, rows=len(window.rows), reason=why,
            waits=window.waits,
        )  # fmt: skip
        return Judged([], _record(what, window, why=why))

    def _manifest(self, model: str, version: str) -> Manifest:
        if (model, version) not in self._manifests:
            self._manifests[model, version] = stored_artifact(self._offline_root, model, version).manifest
        return self._manifests[model, version]


def _record(
    what: Watched, window: Closed[Any], findings: Sequence[Finding] = (), left: Sequence[str] = (), why: str = ""
) -> JudgementRecord:
    return JudgementRecord(
        model=window.model,
        version=window.version,
        what=what,
        start=window.start,
        end=window.end,
        rows=len(window.rows),
        state="waiting" if window.waits else "skipped" if why else "judged",
        why=why,
        comparisons=len(findings),
        drifted=sum(finding.drifted for finding in findings),
        left_out=list(left),
    )
