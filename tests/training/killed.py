"""Trainings in processes that are killed at a moment, or get no more memory from a stage on."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

from tests.demo_state import NOW_MS, demo
from tests.patience import PATIENCE_SECONDS
from tests.training.test_train import MODEL
from tests.training.town import FOLDER

from tidemill import Training
from tidemill.errors import TidemillError
from tidemill_training.app import Choices, Trained, train

CREATED_MS = NOW_MS + 2 * 10**9
UNTIL_MS = NOW_MS + 10**9


class Ending(NamedTuple):
    """What ends a process: before its nth rename of a file, after some seconds, a stage (by name) that gets so many more bytes, or after a
    call of MLflow's client; none of them: nothing. `mlflow`: there is one, in a database below the town; else it is away."""

    rename: int = 0
    seconds: float = 0.0
    stage: str = ""
    more: int = 0
    mlflow: bool = False
    call: str = ""


class Ended(NamedTuple):
    """How a process ended (its exit code; minus the signal that killed it), what it noted and what its error said."""

    code: int
    notes: list[str]
    error: str


def context() -> ForkServerContext:
    """Processes that begin with everything imported."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tests.training.killed"])
    return made


def in_process(
    processes: ForkServerContext,
    root: Path,
    ending: Ending,
    pipeline: Callable[[], Any] | None = None,
    training: Callable[[], Training] | None = None,
) -> Ended:
    """Trains the town's model below `root` in a process of its own."""
    said = root / "said.jsonl"
    said.unlink(missing_ok=True)
    process = processes.Process(target=_train, args=(root, ending, pipeline, training))
    process.start()
    process.join(PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    lines = [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []
    assert process.exitcode is not None
    return Ended(process.exitcode, [line["note"] for line in lines if "note" in line], "".join(line.get("error", "") for line in lines))


def deployed(root: Path) -> list[str]:
    """The versions that were announced."""
    path = root / "deployed"
    return path.read_text().split() if path.exists() else []


def _train(root: Path, ending: Ending, pipeline: Callable[[], Any] | None, training: Callable[[], Training] | None) -> None:
    if not ending.mlflow:
        os.environ |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

    def write(**line: str) -> None:
        with (root / "said.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def announce(trained: Trained) -> None:
        with (root / "deployed").open("a") as file:
            file.write(trained.manifest.version + "\n")

    _arm(ending)
    model = dataclasses.replace(MODEL, pipeline=pipeline or MODEL.pipeline, training=training() if training else MODEL.training)
    try:
        train(demo(), str(FOLDER), model, str(root), UNTIL_MS, lambda text: write(note=text), announce, Choices(created_ms=CREATED_MS))
    except TidemillError as error:
        write(error=str(error))
        os._exit(1)
    os._exit(0)


def _arm(ending: Ending) -> None:
    if ending.seconds:
        timer = threading.Timer(ending.seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    renamed = 0

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renamed
        if event != "os.rename":
            return
        renamed += 1
        if renamed == ending.rename:
            os.kill(os.getpid(), signal.SIGKILL)
        part = Path(os.fsdecode(arguments[0]))
        if ending.stage and part.name == "began.json.part" and json.loads(part.read_bytes())["stage"] == ending.stage:
            (size,) = [
                int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")
            ]
            resource.setrlimit(resource.RLIMIT_AS, (size + ending.more, resource.RLIM_INFINITY))

    sys.addaudithook(heard)
    if ending.call:
        _killed_after(ending.call)


def _killed_after(call: str) -> None:
    """MLflow's client does one thing whole, and never returns from it."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, call)

    def last(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, call, last)
