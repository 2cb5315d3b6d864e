"""What was told before: alerts and judgements, by which a process goes on after another, and which it does not repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tidemill.records import AlertRecord, JudgementRecord, Watched
from tidemill_drift.episodes import Episodes


class ToldBefore:
    """`ids`: of all alerts; `episodes`: those that the closed windows left open; `since`: for each thing watched, from where the rows of a version
    wait. `ends`: for each thing watched, the end of the last closed window; later windows will be judged again."""

    def __init__(self, ends: Mapping[Watched, int], alerts: Iterable[AlertRecord], judgements: Iterable[JudgementRecord]) -> None:
        self.ids, self.episodes = set[str](), Episodes()
        self._all = Episodes()  # those that windows to be judged again opened, too
        self.since: dict[Watched, dict[tuple[str, str], int]] = {what: {} for what in ends}
        self._said = set[tuple[str, str, Watched, int]]()
        for alert in alerts:
            if alert.source == "drift":
                self.sent(alert)
                if alert.end <= ends[_watched(alert)]:
                    self.episodes.restore(alert)
        for judgement in judgements:
            self.said(judgement)
            if judgement.end <= ends[judgement.what]:
                self._wait(judgement)

    def sent(self, alert: AlertRecord) -> None:
        """Takes an alert that is on the topic."""
        self.ids.add(alert.id)
        self._all.restore(alert)

    def supersede(self, gone: Callable[[tuple[str, str]], str]) -> list[AlertRecord]:
        """Closes all open episodes of versions that serve no more; see `Episodes.supersede`."""
        closed = self._all.supersede(gone)
        for alert in closed:
            self.episodes.restore(alert)
        return closed

    def said(self, judgement: JudgementRecord) -> bool:
        """Takes a judgement. False: it was said before."""
        about = judgement.model, judgement.version, judgement.what, judgement.end
        if about in self._said:
            return False
        self._said.add(about)
        return True

    def _wait(self, judgement: JudgementRecord) -> None:
        version = judgement.model, judgement.version
        if judgement.state == "waiting":
            self.since[judgement.what][version] = judgement.start
        else:
            self.since[judgement.what].pop(version, None)


def _watched(alert: AlertRecord) -> Watched:
    if alert.kind != "performance":
        return "inputs"
    return "ranking" if alert.subject == "auc" else "outcomes"
