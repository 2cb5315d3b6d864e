"""Snapshots of one line: which of them answered, what is told about them, and the version that each becomes."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.models.test_learned import COLUMNS, Steps, lesson
from tests.retraining.made import NOW_MS, answered, became, step
from tests.retraining.test_evidence import LATE, version

from tidemill import Online
from tidemill.errors import ArtifactError
from tidemill.models.artifact import (
    GoldenRow,
    Manifest,
    ModelInput,
    Parity,
    PythonEngine,
    beside_artifact,
    keep_beside,
    save_artifact,
)
from tidemill.models.incremental import Incremental
from tidemill.models.learned import FILE, Learned, Learner, Limits
from tidemill.models.line import LearnedOnline
from tidemill.models.pipelines.packages import how_served, learned_since
from tidemill.stats.histograms import reference
from tidemill_retraining.evidence import GRACE_MS, Evidence, Measuring
from tidemill_retraining.history import History, OpenRun
from tidemill_retraining.jobs import Listening, _next_line, _SilentError, run
from tidemill_retraining.learner import kept_snapshot
from tidemill_retraining.online import _Tried
from tidemill_retraining.settings import JobSettings
from tidemill_retraining.snapshot import manifest_of, version_name
from tidemill_retraining.stages import Seats, evidence_for, succeeds

HOW = Measuring("probability", "brier")


def trained(pipeline: bytes, **more: Any) -> Manifest:
    """The version with which a line begins."""
    draw = reference(np.random.default_rng(1).normal(size=50))
    inputs = [ModelInput("size", "number"), ModelInput("shop", "category", ["north", "south"])]
    own = PythonEngine(hashlib.sha256(pipeline).hexdigest(), "3.11", {"numpy": "2"}, False)
    found = Manifest(
        model="late", version="v1", created=1, inputs=inputs, output="probability", definitions={}, trained_from=0, trained_until=1, rows=100,
        metrics={"auc": 0.5}, parity=Parity(0.0, 0, 1e-4), reference={"size": draw, "prediction": draw}, onnx_sha256="", engine=own,
        golden=[GoldenRow([1.0, 0.0], 0.0), GoldenRow([None, None], 0.0)], online=LearnedOnline("v1"),
    )  # fmt: skip
    return msgspec.structs.replace(found, **more)


def taught(outcomes: int) -> Learned:
    """A snapshot after some outcomes, half of them true."""
    begun = Learned("v1", pickle.dumps(Incremental(Steps(), COLUMNS, 2), protocol=5))
    return list(
        Learner(begun, Limits(outcomes, 10**6)).take([lesson(i, label=float(i % 2)) for i in range(outcomes)] + [lesson(99, row=None)])
    )[-1]


def test_answers_of_a_line_are_one() -> None:
    """What the snapshots answered one after the other counts together; between them there may be no answer, and nobody is blamed."""
    evidence = Evidence("late", "v0", "v1-1", HOW, ["size", "load"])
    evidence.join("v1-2")
    for place in range(60):
        name, served = f"r{place}", place * 1_000
        evidence.answer(answered(name, "v0", 0.5, served))
        if not 20 <= place < 40:
            evidence.answer(answered(name, "v1-1" if place < 20 else "v1-2", 1.0, served))
        evidence.result(became(name, "v0", 0.5, 1.0))
    pairs = evidence.pairs()
    assert (len(pairs.champion), pairs.challenger.tolist()) == (40, [0.0] * 40)
    assert evidence.others == 40
    assert evidence.answered(60_000 + GRACE_MS, 0) == (40, 40)
    alone = Evidence("late", "v0", "v1-1", HOW, [])
    for place in range(60):
        alone.answer(answered(f"r{place}", "v0", 0.5, place))
        if place < 20:
            alone.answer(answered(f"r{place}", "v1-1", 0.5, place))
    assert alone.answered(60 + GRACE_MS, 0) == (60, 20)


def test_a_newer_snapshot_keeps_the_step() -> None:
    """The step began with the first of them, and a restart reads on from there; the next step is of the newest alone."""
    ends = {"results": [7]}
    records = [
        step("begun", NOW_MS, champion="v0"), step("trained", NOW_MS + 1, version="v1-1"), step("rehearsed", NOW_MS + 2, champion="v0"),
        step("shadow", NOW_MS + 3, version="v1-1", champion="v0", ends=ends), step("shadow", NOW_MS + 9, version="v1-2", champion="v0"),
        step("shadow", NOW_MS + 9, version="v1-2", champion="v0"), step("shadow", NOW_MS + 12, version="v1-3", champion="v0"),
    ]  # fmt: skip
    found = History.of(records).open
    assert found is not None
    assert (found.version, found.line, found.since, dict(found.ends)) == ("v1-3", ("v1-1", "v1-2"), NOW_MS + 3, ends)
    assert [(one.open and one.open.seated) for one in map(History.of, (records[:4], records[:5], records[:6]))] == [
        NOW_MS + 3,
        NOW_MS + 9,
        NOW_MS + 9,
    ]
    after = History.of([*records, step("promoted", NOW_MS + 20, version="v1-3", champion="v0", ends={"results": [9]})]).open
    assert after is not None
    assert (after.step, after.line, dict(after.ends)) == ("promoted", (), {"results": [9]})


def test_a_run_says_how_much_was_learned() -> None:
    """So that the same snapshot begins one run only; other causes are others'."""
    assert _Tried.read(_Tried("v1", 400).cause) == _Tried("v1", 400)
    assert [_Tried.read(cause) for cause in ("a1", "hand:7", "learned:v1:x")] == [None] * 3


@pytest.mark.parametrize(("better", "verdict"), [(0.0, "promote"), (0.3, "promote"), (-0.6, "reject")])
def test_the_next_snapshot_succeeds_unless_it_is_worse(better: float, verdict: str) -> None:
    """After the least outcomes a tie is enough; before, it waits."""
    policy = Online(least=60).policy
    run_ = OpenRun("late", 1, "shadow", 0, 0, (), "v1-2", "v1-1")
    evidence = evidence_for(run_, LATE, policy, Seats(version("v1-1"), version("v1-2")))
    assert succeeds(run_, policy, evidence, NOW_MS).verdict == "wait"
    for place in range(200):
        evidence.answer(answered(f"r{place}", "v1-1", 0.6, place))
        evidence.answer(answered(f"r{place}", "v1-2", 0.6 + better, place))
        evidence.result(became(f"r{place}", "v1-1", 0.6, 1.0))
    assert succeeds(run_, policy, evidence, NOW_MS).verdict == verdict


def test_a_snapshot_becomes_a_version() -> None:
    """The same bytes each time; with what was measured on its newest outcomes, each answered before it was learned, and how much it learned."""
    found = taught(40)
    first = trained(found.pipeline)
    made = manifest_of(first, found)
    assert made == manifest_of(first, Learned.decoded(found.encoded()))
    assert (made.version, version_name(found), made.learning) == ("v1-00000040", "v1-00000040", LearnedOnline("v1", 40, 0, 40))
    assert made.own_pipeline is not None
    assert made.file_sha256 == made.own_pipeline.pickle_sha256
    assert [row.output for row in made.golden] == [0.5, 0.5]
    assert made.metrics["examples"] == 40
    assert made.calibration["outcome"].rows == 40
    assert (made.reference["size"], made.reference["prediction"].rows) == (first.reference["size"], 40)
    assert learned_since(made) == "40 outcomes learned since v1"
    assert "online: 40 outcomes learned" in how_served(made)
    assert learned_since(msgspec.structs.replace(made, online=msgspec.UNSET)) == ""


def test_a_snapshot_that_answers_nan_is_no_version() -> None:
    """Its golden rows are answered when it is made."""
    lost = Steps()
    lost.lost = True
    found = msgspec.structs.replace(taught(10), pipeline=pickle.dumps(Incremental(lost, COLUMNS, 2), protocol=5))
    with pytest.raises(ArtifactError, match="answers NaN to 2 of its golden rows"):
        manifest_of(trained(found.pipeline), found)


def test_the_newest_snapshot_is_kept_beside_its_line(tmp_path: Path) -> None:
    """Over the one before; one that cannot be read is none, since the log has all of it."""
    found = taught(10)
    manifest = trained(found.pipeline)
    save_artifact(str(tmp_path), manifest, found.pipeline)
    assert kept_snapshot(str(tmp_path), manifest) is None
    for snapshot in (taught(5), found):
        keep_beside(str(tmp_path), manifest, FILE, snapshot.encoded())
    assert kept_snapshot(str(tmp_path), manifest) == found
    assert beside_artifact(str(tmp_path), manifest, FILE) == found.encoded()
    keep_beside(str(tmp_path), manifest, FILE, found.encoded()[:40])
    assert kept_snapshot(str(tmp_path), manifest) is None


async def test_a_process_that_says_nothing_hangs() -> None:
    """A line that comes is given; one that does not come in time is told."""
    out = asyncio.StreamReader()
    out.feed_data(b"mine\n")
    assert await _next_line(out, 60.0) == b"mine\n"
    with pytest.raises(_SilentError):
        await _next_line(out, 0.001)


@pytest.mark.slow
async def test_who_listens_hears() -> None:
    """Lines that were meant for him are not kept as what the process said."""
    heard: list[str] = []

    def mine(line: str) -> bool:
        heard.append(line)
        return line == "mine"

    ended = await run(["sh", "-c", "echo mine; echo other"], JobSettings(), None, Listening(mine, 600.0))
    assert (ended.why, ended.lines, heard) == ("", ["other"], ["mine", "other"])
