"""Alerts as operators see them: episodes that are open or over, with what was said about them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tidemill.records import AlertRecord, JudgementRecord, NoteRecord

UNSEEN = "share never seen in training"
"""The test about texts that were not there in training. Of one input both this share and the share missing may have grown."""


def watched_about(version: tuple[str, str], kind: str, subject: str, test: str) -> tuple[str, str, str, str, str]:
    """What an episode of drift detection is about. Its tests may change with the number of rows: it stays the same episode."""
    return *version, kind, subject, test if test == UNSEEN else ""


def about(alert: AlertRecord) -> tuple[object, ...]:
    """What the episode of an alert is about."""
    if alert.source == "drift":
        return watched_about((alert.model, alert.version), alert.kind, alert.subject, alert.test)
    return alert.source, alert.test, alert.view, alert.partition, alert.subject


def standing(alerts: Iterable[AlertRecord]) -> list[AlertRecord]:
    """The newest alert of each episode that is open, the latest last. Alerts may be added to what stood before."""
    found: dict[tuple[object, ...], AlertRecord] = {}
    for alert in alerts:
        found.pop(about(alert), None)
        if alert.state != "closed":
            found[about(alert)] = alert
    return list(found.values())


class AlertEpisode(NamedTuple):
    """The first and the newest alert of an episode, and the notes that acknowledge and mute it now."""

    opened: AlertRecord
    newest: AlertRecord
    acknowledged: NoteRecord | None = None
    muted: NoteRecord | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is not over."""
        return self.newest.state != "closed"


def episodes_of(alerts: Iterable[AlertRecord], notes: Sequence[NoteRecord], now_ms: int) -> list[AlertEpisode]:
    """All episodes, in the order in which they began. `alerts` and `notes` as they stand on their topics."""
    found, newest = list[AlertEpisode](), dict[tuple[object, ...], int]()
    known = {note.alert: note for note in notes if note.kind == "ack"}
    for alert in alerts:
        place = newest.get(about(alert))
        if place is None or not found[place].is_open:
            newest[about(alert)] = place = len(found)
            found.append(AlertEpisode(alert, alert, muted=muted_by(alert, notes, now_ms)))
        episode = found[place]._replace(newest=alert)
        found[place] = episode._replace(acknowledged=known.get(alert.id, episode.acknowledged))
    return found


def muted_by(alert: AlertRecord, notes: Iterable[NoteRecord], now_ms: int) -> NoteRecord | None:
    """The note that mutes an alert now; None: it is not muted."""
    for note in mutes(notes, now_ms):
        if note.model in ("", alert.model or alert.view) and note.subject in ("", alert.subject):
            return note
    return None


def mutes(notes: Iterable[NoteRecord], now_ms: int) -> list[NoteRecord]:
    """The mutes in force."""
    newest: dict[tuple[str, str], NoteRecord] = {}
    for note in notes:
        if note.kind != "ack":
            newest[note.model, note.subject] = note
    return [note for note in newest.values() if note.kind == "mute" and (note.until is None or note.until > now_ms)]


def not_judged(judgements: Iterable[JudgementRecord]) -> list[JudgementRecord]:
    """Of each version and each thing watched the newest judgement, if it was not judged: silence about it means nothing."""
    newest = {(one.model, one.version, one.what): one for one in judgements}
    return [one for one in newest.values() if one.state != "judged" and not one.why.startswith("superseded")]
