"""Traffic is sent in order, and what became of it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from tests.traffic.shops import made, project

from tidemill.errors import Unavailable
from tidemill.traffic.acts import Act
from tidemill.traffic.drifts import Drift
from tidemill.traffic.sending import HttpDoor, send
from tidemill.traffic.tally import Tally


class Gate:
    """A way that notes what passes: "ask" or the event's name, and the subject. `refuses`: events of this kind; `away`: from so many calls on."""

    def __init__(self, refuses: str = "", away: int | None = None) -> None:
        self.passed: list[tuple[str, str]] = []
        self._refuses, self._away, self._calls = refuses, away, 0

    async def publish(self, events: Sequence[Act]) -> list[str | None]:
        """Takes all but what it refuses."""
        self._call()
        self.passed += [(act.event, str(act.row.get("order"))) for act in events]
        return ["wrong_type: no" if act.event == self._refuses else None for act in events]

    async def ask(self, model: str, questions: Sequence[Act]) -> list[dict[str, Any]]:
        """Answers a half to late, "good" to stars, an error to back."""
        self._call()
        self.passed += [("ask", act.subject) for act in questions]
        answers: dict[str, dict[str, Any]] = {"late": {"probability": 0.5}, "stars": {"class": "good"}, "back": {"error": "not deployed"}}
        return [answers[model]] * len(questions)

    def _call(self) -> None:
        self._calls += 1
        if self._away is not None and self._calls > self._away:
            raise Unavailable("ingestion does not answer")


def at_once(found: list[Act]) -> list[Act]:
    """The same acts, all due now."""
    return [act._replace(offset_ms=0) for act in found]


async def test_questions_come_before_their_events_and_all_is_counted() -> None:
    """Answers are judged when their outcomes were taken."""
    gate, tally, found = Gate(refuses="measured"), Tally(), at_once(made(seconds=3.0))
    shown: list[str] = []
    await send(found, gate, tally, lambda so_far: shown.append(so_far.progress()))
    for act in found:
        if act.model:
            assert gate.passed.index(("ask", act.subject)) < gate.passed.index(("placed", act.subject))
    events = [act for act in found if not act.model]
    assert (tally.sent, tally.asked) == (len(events), len(found) - len(events))
    assert tally.refused == {"wrong_type: no": sum(act.event == "measured" for act in found)}
    assert tally.unanswered == {"not deployed": sum(act.model == "back" for act in found)}
    assert tally.accepted == tally.sent - tally.refused.total()
    late = tally.quality["late", False]
    truths = [float(act.truth or 0) for act in found if act.event == "paid"]
    assert (late.outcomes, late.truths, late.answers, late.lost) == (len(truths), sum(truths), len(truths) / 2, len(truths) / 4)
    assert tally.quality["stars", False].lost == sum(act.truth != "good" for act in found if act.event == "rated")
    text = "\n".join(tally.lines())
    assert "refused: " in text
    assert "wrong_type: no" in text
    assert "not answered: " in text
    assert "of the answers right" in text
    assert shown[-1] == tally.progress()


async def test_each_act_waits_for_its_moment() -> None:
    """What is due later is not sent with what is due now: an outcome comes after everything before it."""
    gate = Gate()
    found = made(seconds=0.3, delay_ms=300, models=["late"])
    await send(found, gate, Tally(), lambda _: None)
    wanted = [("ask" if act.model else act.event, act.subject if act.model else str(act.row.get("order"))) for act in found]
    assert [one for one in gate.passed if one[0] == "paid"] == [one for one in wanted if one[0] == "paid"]
    assert sorted(gate.passed) == sorted(wanted)


async def test_a_service_that_was_never_there_ends_it() -> None:
    """One that goes away in the meantime is counted, and the rest goes on."""
    found = at_once(made(seconds=30.0))
    with pytest.raises(Unavailable):
        await send(found, Gate(away=0), Tally(), lambda _: None)
    tally = Tally()
    await send(found, Gate(away=4), tally, lambda _: None)
    assert tally.refused["ingestion does not answer"] > 0
    assert tally.sent + tally.asked == len(found)


async def test_answers_under_drift_are_told_apart() -> None:
    """By the moment of the outcome."""
    drift = Drift("outcome", "flip", 1.0, 2_000)
    tally = Tally([drift])
    for act in made(seconds=3.0, delay_ms=100, models=["late"]):
        if act.model:
            tally.heard(act, {"probability": 0.25})
        else:
            tally.told(act, None)
    assert set(tally.quality) == {("late", False), ("late", True)}
    assert {line.split(":")[0] for line in tally.lines()} >= {"late with drifts", "late without drifts"}


async def test_what_services_say_over_http() -> None:
    """Positions and reasons of events, one by one; an answer or an error for each question; a refusal of all of them."""
    asked: list[tuple[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = msgspec.json.decode(request.content)
        asked.append((str(request.url), body))
        if request.url.path == "/events":
            return httpx.Response(207, json={"results": [{"index": 0, "id": "a"}, {"index": 1, "reason": "bad_key", "detail": "empty"}]})
        if request.url.path == "/predict/late":
            return httpx.Response(200, json={"predictions": [{"probability": 0.5}, {"error": "no"}]})
        return httpx.Response(404, json={"error": "not deployed", "mend": "train it"})

    found = made(seconds=1.0)
    events, questions = [act for act in found if not act.model][:2], [act for act in found if act.model == "late"][:2]
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        door = HttpDoor(project(), client, "http://in", "http://out")
        assert await door.publish(events) == [None, "bad_key: empty"]
        assert await door.ask("late", questions) == [{"probability": 0.5}, {"error": "no"}]
        assert [one["error"] for one in await door.ask("stars", questions)] == ["not deployed"] * 2
    assert [url for url, _ in asked] == ["http://in/events", "http://out/predict/late", "http://out/predict/stars"]
    assert [one["type"] for one in asked[0][1]] == [act.event for act in events]
    assert [one["subject"] for one in asked[1][1]["instances"]] == [act.subject for act in questions]


async def test_a_service_that_does_not_answer_is_named() -> None:
    """Also one that answers no JSON."""

    def refuse(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/events":
            raise httpx.ConnectError("refused")
        return httpx.Response(502, text="<html>")

    found = made(seconds=1.0)
    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        door = HttpDoor(project(), client, "http://in", "http://out")
        with pytest.raises(Unavailable, match="ingestion at http://in/events does not answer"):
            await door.publish([act for act in found if not act.model][:1])
        with pytest.raises(Unavailable, match="inference at http://out/predict/late does not answer"):
            await door.ask("late", [act for act in found if act.model == "late"][:1])
