"""Workers that hang, end, lack memory or are killed: one request fails, those that wait after it are answered, and no process is left over."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.models.troubled import (
    ABORTS,
    BUSY,
    EXITS,
    HUNGRY,
    KILLED,
    NOT_A_NUMBER,
    RAISES,
    SLEEPS,
    TALKS,
    Troubled,
    Unloadable,
    answer,
    is_running,
    row,
    runner_of,
    until,
)

from tidemill.errors import ArtifactError, BadRequest
from tidemill.models.pipelines import runner as runners
from tidemill.models.pipelines.courier import Terms
from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.models.pipelines.runner import PipelineRunner

pytestmark = pytest.mark.slow
TOLD: list[tuple[str, str]] = []


@pytest.fixture(scope="module")
def runner() -> Iterator[PipelineRunner]:
    """One runner for all: each failure costs it a worker."""
    made = runner_of(Troubled(), Terms(seconds=1.5, told=lambda kind, told: TOLD.append((kind, told))))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("trouble", "kind", "told"),
    [
        (SLEEPS, "hangs", "it gave no answer within 1.5 s"),
        (BUSY, "hangs", "it gave no answer within 1.5 s"),
        (EXITS, "ended", "its process ended with code 3"),
        (KILLED, "ended", "its process was ended by SIGKILL; that is how the system ends what needs more memory than there is"),
        (ABORTS, "ended", "its process was ended by SIGABRT"),
        (HUNGRY, "memory", "it needs more than its 4,096 MB"),
    ],
)
def test_a_row_that_ends_its_worker_fails_alone(runner: PipelineRunner, trouble: int, kind: str, told: str) -> None:
    """The rows that were sent with it are answered, by the worker before or by the next one, and all of it is told."""
    TOLD.clear()
    asked = [row(0.25, 0.5), row(0.5), row(trouble), row(0.125), row(0.25)]
    futures = [runner.asked(one) for one in asked]
    with pytest.raises(EngineUnavailable, match="python engine of model late v1 gave no answer") as failed:
        futures[2].result()
    assert failed.value.message.partition(": ")[2].startswith(told)
    assert (failed.value.kind, failed.value.http_status) == (kind, 503)
    late = []
    for place in (0, 1, 3, 4):
        try:
            assert runner.answer_of(futures[place].result())[0, 1] == asked[place].sum()
        except EngineUnavailable as error:  # a start that takes long on a busy machine: it is told, and the next one is answered
            late.append(error)
    assert all("no time for this request" in error.message for error in late)
    until(lambda: _answered(runner), "another worker answers")
    assert [one for one, _ in TOLD] == [kind]


def _answered(runner: PipelineRunner) -> bool:
    try:
        return answer(runner, row(0.5, 0.125)) == 0.875
    except EngineUnavailable:
        return False


def test_an_error_of_the_pipeline_is_of_that_row_alone(runner: PipelineRunner) -> None:
    """It names error and place; the worker goes on, also after what is no number and after words on its standard output."""
    until(lambda: _answered(runner), "a worker is there")
    before = runner.failures
    with pytest.raises(BadRequest, match=r"fails on these inputs: KeyError: 'distance' \(troubled\.py:\d+\); check the values"):
        answer(runner, row(RAISES))
    assert answer(runner, row(NOT_A_NUMBER)) != answer(runner, row(NOT_A_NUMBER))
    assert answer(runner, row(TALKS)) == TALKS + 0.25
    assert runner.failures == before


def test_a_worker_that_was_killed_between_two_requests_costs_none(runner: PipelineRunner) -> None:
    """Its end is seen, another is started, and the next request is answered by that one."""
    until(lambda: _answered(runner), "a worker is there")
    pid, before = runner.pid, runner.failures
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: runner.failures > before, "its end is seen")
    until(lambda: runner.pid not in (None, pid), "another is started")
    until(lambda: _answered(runner), "it answers")
    assert not is_running(pid)


def test_a_worker_ends_with_the_last_who_has_its_runner() -> None:
    """A version that is retired is released, and so its process ends; what was asked before is answered, or refused, never kept."""
    made = runner_of(Troubled())
    pid, future = made.pid, made.asked(row(SLEEPS))
    assert pid is not None
    assert is_running(pid)
    del made
    gc.collect()
    until(lambda: not is_running(pid), "its process ends")
    with pytest.raises(EngineUnavailable):
        future.result()


def test_an_idle_worker_ends_until_it_is_asked() -> None:
    """Workers of explanations are not kept for versions that nobody asks about."""
    made = runner_of(Troubled(), Terms(idle_seconds=0.1))
    until(lambda: made.pid is None, "it ends")
    assert answer(made, row(0.5)) == 0.75
    assert made.failures == 0
    made.close()
    assert made.pid is None
    with pytest.raises(EngineUnavailable, match="released"):
        answer(made, row(0.5))


@pytest.mark.parametrize(
    ("how", "told"), [("exit", "its process ended with code 4"), ("package", r"ValueError: no package here \(troubled\.py:\d+\)")]
)
def test_a_pipeline_that_cannot_be_loaded_is_refused(how: str, told: str) -> None:
    """At once, with the reason and a mend; no worker is tried again."""
    with pytest.raises(ArtifactError, match=rf"the pipeline of late v1 cannot be loaded: {told}; see that the project and the packages"):
        runner_of(Unloadable(how))


def test_a_limit_of_memory_holds_while_it_loads() -> None:
    """A pickle that needs more than the limit does not take the machine's memory."""
    with pytest.raises(ArtifactError, match=r"cannot be loaded: .*MemoryError"):
        runner_of(Unloadable("memory"))


PARENT = """
import sys, time
from tests.models.troubled import BUSY, SLEEPS, Troubled, row, runner_of
runner = runner_of(Troubled())
runner.asked(row(int(sys.argv[1])))
print(runner.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("trouble", [BUSY, 0])
def test_a_worker_ends_with_its_killed_parent(trouble: int) -> None:
    """Also one that is busy in C code, and sees nothing of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(trouble)], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)  # it begins to be busy
        assert is_running(pid)
        parent.kill()
    until(lambda: not is_running(pid), "the worker ends")


def test_a_retired_worker_ends_though_somebody_has_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that began before is answered all the same; a version that comes back keeps its worker."""
    monkeypatch.setattr(runners, "RETIRED_SECONDS", 0.05)
    made = runner_of(Troubled())
    made.retire(retired=True)
    until(lambda: made.pid is None, "it ends")
    made.retire(retired=False)
    assert answer(made, row(0.5)) == 0.75
    pid = made.pid
    time.sleep(0.3)  # longer than it may be idle
    assert (made.pid, made.failures) == (pid, 0)
    made.close()
