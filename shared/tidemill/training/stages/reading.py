"""The runs that were written down: how each stands, its stages, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec
from pyarrow import fs

from tidemill.errors import TidemillError, anew
from tidemill.models.artifact import folder_of
from tidemill.training.stages.evaluation import EVALUATION, Evaluation
from tidemill.training.stages.files import RunFiles, folders_of, runs_root
from tidemill.training.stages.findings import CheckFinding, Findings
from tidemill.training.stages.records import STAGES, Began, EndRecord, RunRecord, StageRecord

S = TypeVar("S", bound=msgspec.Struct)
State = Literal["trained", "refused", "running", "ended"]


class NoSuchRun(TidemillError):
    """No such run of training is written down on this machine, nor stored as a version with its evaluation."""

    http_status = 404

    def __init__(self, model: str, run: str, there: Sequence[str]) -> None:
        mend = f"choose one of: {', '.join(there[:10])}" if there else anew(model)
        super().__init__(f"no run {run} of {model} is known here", mend=mend)


class RunState(NamedTuple):
    """A run. `state`: "ended" for one that stopped before it was done, and may go on; `said`: its version, why it was refused, or its stage; `found`: what
    was wrong with its training set."""

    record: RunRecord
    state: State
    said: str
    stages: list[StageRecord]
    evaluation: Evaluation | None
    found: list[CheckFinding] = []

    @property
    def seconds(self) -> float:
        """What its stages took together."""
        return sum(stage.seconds for stage in self.stages)


def read_runs(offline_root: str, model: str) -> list[RunState]:
    """The runs of a model on this machine, the newest first."""
    found = [_state(RunFiles(folder)) for folder in folders_of(offline_root, model)]
    return [state for state in found if state is not None]


def read_run(offline_root: str, model: str, run: str) -> RunState:
    """One run. Raises NoSuchRun."""
    folder = runs_root(offline_root) / model / run
    state = _state(RunFiles(folder)) if folder.is_dir() else None
    if state is None:
        raise NoSuchRun(model, run, [one.record.run for one in read_runs(offline_root, model)])
    return state


def read_evaluation(offline_root: str, model: str, run: str) -> Evaluation:
    """The evaluation of a run on this machine, or the one that is stored beside the version. Raises NoSuchRun."""
    found = _read(RunFiles(runs_root(offline_root) / model / run), EVALUATION_OF_RUN, Evaluation)
    found = found or _stored(offline_root, model, run)
    if found is None:
        raise NoSuchRun(model, run, [one.record.run for one in read_runs(offline_root, model) if one.evaluation])
    return found


EVALUATION_OF_RUN = "evaluate.json"


def _stored(offline_root: str, model: str, version: str) -> Evaluation | None:
    store, path = fs.FileSystem.from_uri(offline_root) if "://" in offline_root else (fs.LocalFileSystem(), offline_root)
    try:
        with store.open_input_stream(f"{path}/{folder_of(model, version)}/{EVALUATION}") as stream:
            return msgspec.json.decode(stream.read(), type=Evaluation)
    except (OSError, msgspec.DecodeError):  # of a version that an earlier tidemill trained, or a later one
        return None


def _state(files: RunFiles) -> RunState | None:
    record = _read(files, "run.json", RunRecord)
    if record is None:
        return None
    stages = [stage for name in STAGES if (stage := _read(files, f"{name}.record.json", StageRecord))]
    evaluation, ended = _read(files, EVALUATION_OF_RUN, Evaluation), _read(files, "ended.json", EndRecord)
    checked = _read(files, "check.json", Findings)
    found = checked.found if checked else []
    if ended is not None:
        return RunState(record, ended.result, ended.said, stages, evaluation, found)
    began = _read(files, "began.json", Began)
    told = f"in stage {began.stage}" if began else "between two stages"
    if files.hold():
        files.release()
        return RunState(record, "ended", told, stages, evaluation, found)
    return RunState(record, "running", told, stages, evaluation, found)


def _read(files: RunFiles, name: str, kind: type[S]) -> S | None:
    """A record; None when there is none, or one that this version of tidemill cannot read."""
    content = files.read(name)
    try:
        return None if content is None else msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError:
        return None
