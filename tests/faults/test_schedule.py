"""The schedule, the report and the ears: pure parts of the tool."""

from __future__ import annotations

import math
import os
import random
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.__main__ import main
from tests.faults.injections.catalogue import CATALOGUE
from tests.faults.injections.injection import Injection
from tests.faults.oracle import Joined, differing, joined
from tests.faults.progress import CATCHING_UP_SECONDS, PATIENCE_SECONDS, SILENCE_SECONDS, Goal, Look, Voices
from tests.faults.report import Report
from tests.faults.resources import Resources
from tests.faults.run import Plan
from tests.faults.schedule import LONG_SECONDS, MOST, beside, disjoint, schedule, third
from tests.faults.tally import Tally


def test_every_kind_has_a_name_of_its_own() -> None:
    """Kinds are counted by their names."""
    names = [kind.name for kind in CATALOGUE]
    assert len(names) == len(set(names)) >= 30


def test_kinds_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern that finds no kind is an error that says where to look, before anything is started."""
    with pytest.raises(SystemExit) as ended:
        main(["--kinds", "no such kind"])
    assert ended.value.code == 2
    assert "--list" in capsys.readouterr().err


@pytest.mark.slow
@given(st.integers(0, 1000))
def test_a_seed_is_a_schedule(seed: int) -> None:
    """The same seed gives the same faults; every kind strikes once before any strikes again; those at once have nothing in common."""
    first, second = ([*islice(schedule(seed, CATALOGUE, lambda _: True), 2 * len(CATALOGUE))] for _ in range(2))
    assert first == second
    struck = [kind.name for fault in first for kind in fault.injections]
    assert len(set(struck[: len(CATALOGUE)])) == len(CATALOGUE)
    assert all(disjoint(*pair) for fault in first for pair in combinations(fault.injections, 2))
    assert max(len(fault.injections) for fault in first) == MOST


def test_three_thirds_are_the_whole() -> None:
    """Each kind is in one third; all are about as large, and strike at every target that has three kinds or more."""
    kinds = [kind for kind in CATALOGUE if not kind.soak]
    thirds = [third(kinds, number) for number in (1, 2, 3)]
    assert sorted(kind.name for chosen in thirds for kind in chosen) == sorted(kind.name for kind in kinds)
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 6
    many = {kind.targets[:1] for kind in kinds if sum(other.targets[:1] == kind.targets[:1] for other in kinds) > 2}
    for chosen in thirds:
        assert many <= {kind.targets[:1] for kind in chosen}


def test_what_may_strike_at_once() -> None:
    """Different targets may; the same may not, nor what has none, nor long ones with a server's, nor inference with a store that loses writes."""

    def kind(target: str, *, seconds: float = 1, rewinds: bool = False) -> Injection:
        return Injection(target, lambda _rig, _rng: target, (target,) if target else (), (), (), seconds=seconds, rewinds=rewinds)

    assert disjoint(kind("features"), kind("valkey", rewinds=True))
    assert disjoint(kind("inference"), kind("valkey"))
    assert not disjoint(kind("inference"), kind("valkey", rewinds=True))
    assert not disjoint(kind("valkey", rewinds=True), kind("inference"))
    assert not disjoint(kind("features"), kind("features"))
    assert not disjoint(kind("features"), kind(""))
    assert not disjoint(kind("features", seconds=5), kind("valkey", seconds=7))
    assert not disjoint(kind("features", seconds=7), kind("valkey", seconds=5))
    assert disjoint(kind("features", seconds=13), kind("ingestion", seconds=10))


def test_what_may_strike_beside_another_schedule() -> None:
    """Two strikes at a service may, at a server may not, nor what makes a store lose writes and an inference that ends."""

    def kind(target: str, *, rewinds: bool = False) -> Injection:
        return Injection(target, lambda _rig, _rng: target, (target,), (), (), rewinds=rewinds)

    assert beside(kind("features"), kind("features"))
    assert beside(kind("apply"), kind("kafka"))
    assert not beside(kind("kafka"), kind("kafka"))
    assert not beside(kind("inference"), kind("valkey", rewinds=True))
    assert not beside(kind("valkey", rewinds=True), kind("inference"))


def test_what_must_not_strike_now_is_left_out() -> None:
    """A kind that is not allowed is passed over, and comes again when it is."""

    def strike(_rig: object, _rng: random.Random) -> str:
        raise AssertionError

    kinds = [Injection(name, strike, (name,), (), ()) for name in ("one", "two")]
    allowed: set[str] = {"one"}
    faults = schedule(1, kinds, lambda kind: kind.name in allowed)
    assert [next(faults).name for _ in range(3)] == ["one"] * 3
    allowed.add("two")
    assert "two" in " ".join(next(faults).name for _ in range(4))


def test_nothing_that_may_strike_is_an_error() -> None:
    """A schedule that could only wait for ever says so; one whose kinds are only due in later rounds goes on."""

    def strike(_rig: object, _rng: random.Random) -> str:
        raise AssertionError

    long = [Injection("long", strike, ("long",), (), (), seconds=LONG_SECONDS + 1)]
    assert [fault.name for fault in islice(schedule(1, long, lambda _: True), 5)] == ["long"] * 5
    for kinds in (long, []):
        with pytest.raises(ValueError, match="none of the chosen kinds may strike"):
            next(schedule(1, kinds, lambda _: False))


def test_when_a_run_is_over() -> None:
    """A matrix ends with enough faults and events once every kind struck or its time is up; a soak takes its time; both end after twice theirs."""
    matrix = Plan(1, 10, [], faults=5, events=100)
    assert not matrix.over(300, 4, 100, whole=True)
    assert not matrix.over(300, 5, 99, whole=True)
    assert not matrix.over(599, 5, 100, whole=False)
    assert matrix.over(300, 5, 100, whole=True)
    assert not matrix.over(601, 5, 100, whole=False)
    assert matrix.over(1_201, 5, 100, whole=False)
    soak = replace(matrix, soak=True)
    assert not soak.over(599, 5, 100, whole=True)
    assert not soak.over(601, 4, 100, whole=True)
    assert soak.over(601, 5, 100, whole=True)
    assert soak.over(1_201, 0, 0, whole=False)
    assert replace(soak, faults=0, events=0).over(601, 0, 0, whole=False)


def test_silence_is_heard() -> None:
    """A service that is behind is silent when it neither moves nor complains for long; it is told once."""
    voices, long = Voices(), SILENCE_SECONDS + 1
    still = Look({"offline": ("views[0]", 7)}, {})
    assert voices.silent(still, 0) == []
    assert voices.silent(Look({"offline": ("views[0]", 8)}, {}), long) == []
    assert voices.silent(Look({"offline": ("views[0]", 8)}, {"offline": "Kafka is away"}), 2 * long) == []
    assert voices.silent(Look({"offline": ("views[0]", 8), "features": ("x", 1)}, {}), 3 * long - 2) == []
    assert [said.split()[0] for said in voices.silent(Look({"offline": ("views[0]", 8), "features": ("x", 2)}, {}), 4 * long)] == [
        "offline"
    ]
    assert voices.silent(Look({"offline": ("views[0]", 8)}, {}), 9 * long) == []


def test_patience_begins_with_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came into force meanwhile has its whole time too; when that is over, all that is behind or complains is told."""
    goal, look = Goal({}, 0, 100.0, 100.0), Look({"features": ("places.v2[0]", 7)}, {"serving": "Kafka is away"})
    assert goal.overdue(look, 100) is None
    assert goal.overdue(look, 100 + PATIENCE_SECONDS) is None
    monkeypatch.setattr("time.monotonic", lambda: 150.0)
    goal.reach({TopicPartition("places.v2", 0): 9})
    assert goal.overdue(look, 150 + PATIENCE_SECONDS) is None
    told = goal.overdue(look, 151 + PATIENCE_SECONDS)
    assert told is not None
    assert "places.v2[0]" in told
    assert "Kafka is away" in told


def test_who_moves_is_not_stuck() -> None:
    """As long as anything that is behind comes nearer it is catching up, but not for ever."""
    goal = Goal({}, 0, 0.0, 0.0)
    for turn in range(1, 6):
        assert goal.overdue(Look({"features": ("places.v2[0]", turn)}, {}), turn * 100.0) is None
    assert goal.overdue(Look({"features": ("places.v2[0]", 5)}, {}), 500 + PATIENCE_SECONDS + 1) is not None
    assert goal.overdue(Look({"features": ("places.v2[0]", 6)}, {}), CATCHING_UP_SECONDS + 1) is not None


def test_a_report_counts_faults_and_kinds() -> None:
    """Two at once are two faults; any count that is not 0, a finding or a silence make it wrong."""
    report = Report(seed=1)
    report.struck(["a", "b"], 2.0)
    report.struck(["a"], 3.456)
    assert (report.faults, report.kinds, report.worst_recovery_seconds, report.by_kind["b"].worst_recovery_seconds) == (3, 2, 3.46, 2.0)
    assert not report.wrong
    assert Report(seed=1, silences=1).wrong
    assert Report(seed=1, predictions_doubled=1).wrong
    tally = Tally()
    tally.add("lost", "events", ["0-1", "0-2"])
    tally.add("doubled", "none", [])
    report.take(tally)
    assert (report.lost, report.doubled, report.wrong) == (2, 0, True)


def test_resources_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that keeps still is no excess; one that grows, and a table of too many files, are."""
    monkeypatch.setattr("tests.faults.resources.GROWTH_SHARE", 0.0)  # this process may be large already
    resources = Resources(tmp_path)
    for _ in range(6):
        resources.look({"me": os.getpid(), "nobody": 2**22 + 1})
    kept: list[bytes] = []
    assert list(resources.usage()) == ["me"]
    assert resources.usage()["me"].rss_mb > 10
    assert resources.excesses() == []
    kept += [b"x" * (1 << 20) for _ in range(600)]
    for _ in range(6):
        resources.look({"me": os.getpid()})
    resources.table_files = 1000
    assert [said.split()[0] for said in resources.excesses()] == ["me", "a"]


def test_joining_by_the_rule() -> None:
    """The first that was known after the prediction, and near enough; else never."""
    outcomes = [(50, 1.0), (950, 0.0), (1_010, 1.0)]
    assert joined(1_000, 100, outcomes) == Joined("joined", 1_010, 1.0)
    assert joined(1_000, 5, outcomes) == Joined("never", 1_005, None)


def test_bits_differ_or_not() -> None:
    """Nothing and not a number are the same; anything else must be equal."""
    expected = {"a": 1.0, "b": math.nan, "c": 0.1}
    assert differing(expected, {"a": 1.0, "b": None, "c": 0.1}) == []
    assert differing(expected, {"a": 1.0, "b": math.nan, "c": 0.1 + 2**-56}) == [("c", 0.1 + 2**-56, 0.1)]
    assert [name for name, *_ in differing(expected, {"a": None, "b": 2.0})] == ["a", "b", "c"]
