"""What drift detection takes up from the alerts topic when it starts: what it told itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.demo_state import demo

from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.records import AlertRecord, DeploymentRecord, JudgementRecord, OtherVersion, Watched
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert, read_alerts
from tidemill.streams.topics import alerts_topic, topic_specs
from tidemill_drift.judging import Judge, few_of_each, few_rows
from tidemill_drift.monitor import LEAST_ROWS, ResultRow
from tidemill_drift.serving import Serving
from tidemill_drift.told import ToldBefore
from tidemill_drift.windows import Closed

OURS = AlertRecord("ours", "m", "1", "data_quality", "amount", "opened", 0, 5, "missing", 1.0, 1.0, 0.3, 1, "worse", source="drift")


def test_a_window_with_few_rows_is_named() -> None:
    """It waits for more, and both the log and a judgement say so: nobody takes the silence for a model that is well."""
    judge = Judge("/nowhere", 0.01)
    for what in get_args(Watched):
        window = Closed("m", "1", 5, 9, [None] * (LEAST_ROWS - 1), 1, few_rows([None] * (LEAST_ROWS - 1)), waits=True)
        with capture_logs() as lines:
            found = judge.judge(what, window)
        (line,) = lines
        assert (line["event"], line["model"], line["start"], line["rows"]) == ("window not judged", "m", 5, LEAST_ROWS - 1)
        assert line["reason"] == "199 of 200 rows"
        assert found == ([], JudgementRecord("m", "1", what, 5, 9, 199, "waiting", "199 of 200 rows"))


def test_a_version_that_cannot_be_read_is_skipped() -> None:
    """A judgement says why."""
    found = Judge("/nowhere", 0.01).judge("inputs", Closed("m", "1", 5, 9, [None] * 300, 1))
    assert found.judgement is not None
    assert (found.judgement.state, found.judgement.rows) == ("skipped", 300)
    assert "models/m/1 cannot be read" in found.judgement.why


@pytest.mark.parametrize(
    ("positives", "lacks"),
    [
        (0, "0 of 10 rows with the rarer outcome"),
        (295, "5 of 10 rows with the rarer outcome"),
        (9, "9 of 10 rows with the rarer outcome"),
        (10, ""),
    ],
)
def test_an_order_needs_both_outcomes(positives: int, lacks: str) -> None:
    """An AUC of few outcomes of one kind is not judged yet."""
    rows = [ResultRow(0.5, float(i < positives)) for i in range(300)]
    assert few_of_each(rows) == lacks
    assert few_of_each(rows[:199]) == "199 of 200 rows"


def test_what_waits_is_known_after_a_restart() -> None:
    """Of each version and each thing watched, from where rows wait; what a later judgement ended, and what will be judged again, does not."""
    wait, ended = (
        JudgementRecord("m", "1", "inputs", 0, 10, 5, "waiting", "5 of 200 rows"),
        JudgementRecord("m", "1", "inputs", 0, 20, 300, "judged"),
    )
    ends: dict[Watched, int] = {"inputs": 20, "outcomes": 10, "ranking": 10}
    other = msgspec.structs.replace(wait, what="ranking")
    assert ToldBefore(ends, [], [wait, other]).since == {"inputs": {("m", "1"): 0}, "outcomes": {}, "ranking": {("m", "1"): 0}}
    assert ToldBefore(ends, [], [wait, ended]).since["inputs"] == {}
    assert ToldBefore({**ends, "inputs": 10}, [], [wait, ended]).since["inputs"] == {("m", "1"): 0}
    assert not ToldBefore(ends, [], [wait]).said(wait)
    assert ToldBefore(ends, [], [wait]).said(ended)


def deployed(version: str, *others: str) -> DeploymentRecord:
    """A deployment of model m."""
    return DeploymentRecord("m", version, "", "", 0, others=[OtherVersion(other, "shadow", "", "") for other in others])


def test_a_version_that_is_replaced_closes_its_episodes() -> None:
    """One that serves no more is superseded; champion, challengers, shadows, and models that were never deployed go on."""
    serving = Serving()
    assert (serving.gone(("m", "1")), serving.changed) == ("", False)
    serving.deploy([deployed("1"), deployed("2", "3")])
    assert serving.changed
    assert [serving.gone(("m", version)) for version in "123"] == ["superseded by 2", "", ""]
    assert serving.gone(("n", "1")) == ""
    told = ToldBefore({"inputs": 9, "outcomes": 9, "ranking": 9}, [OURS, msgspec.structs.replace(OURS, id="b", version="2")], [])
    (closed,) = told.supersede(serving.gone)
    assert (closed.version, closed.state, closed.reason) == ("1", "closed", "superseded")
    assert closed.message == "m: data quality, amount of 1 is not watched any more: superseded by 2"
    assert closed.id not in told.ids
    assert told.supersede(serving.gone) == []
    early = ToldBefore({"inputs": 0, "outcomes": 0, "ranking": 0}, [OURS], [])  # it ended before it kept the position
    assert [alert.id for alert in early.supersede(serving.gone)] == [closed.id]
    again = ToldBefore({"inputs": 9, "outcomes": 9, "ranking": 9}, [OURS, closed], [])
    assert again.supersede(serving.gone) == []


@pytest.mark.integration
async def test_alerts_of_the_audit_are_not_taken_up(kafka: str, topic_prefix: str) -> None:
    """An alert of the audit neither opens nor closes an episode, with a source or without; an old one of drift detection counts as ever."""
    project, settings = replace(demo(), name=topic_prefix), KafkaSettings(bootstrap_servers=kafka)
    topic = alerts_topic(topic_prefix)
    await ensure_topics(settings, {topic: topic_specs(project)[topic]})
    change: Any = msgspec.structs.replace
    told = [
        OURS,
        change(OURS, id="closed by the audit", state="closed", test="audit", source="audit", partition=1, view="zones"),
        change(OURS, id="old, of the audit", state="closed", test="audit", source=None),
        change(OURS, id="old, ours", subject="fare", source=None),
    ]
    async with started_producer(settings) as made:
        for alert in told:
            await append_alert(made, topic_prefix, alert)
    found = ToldBefore({"inputs": 100, "outcomes": 100, "ranking": 100}, await read_alerts(settings, topic_prefix), [])
    assert found.ids == {"ours", "old, ours"}
    assert {about[:4] for about in found.episodes._told} == {("m", "1", "data_quality", "amount"), ("m", "1", "data_quality", "fare")}
