"""Processes with limits: how they end is said."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gone import wait_gone
from tests.retraining.models import version
from tests.testing import desk

from tidemill.models.artifact import save_artifact
from tidemill_retraining.jobs import Listening, run, training_command
from tidemill_retraining.rehearsal import rehearse
from tidemill_retraining.settings import JobSettings

pytestmark = pytest.mark.slow  # each starts processes

SETTINGS = JobSettings(nice=3)


def python(code: str) -> list[str]:
    """A command."""
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('fine')", ""),
        ("import sys; sys.exit('error: no examples')", "ended with code 1: no examples"),
        ("import sys; sys.exit(3)", "ended with code 3: it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL; that is how the system ends what needs more memory than there is"),
        ("import os; os.kill(os.getpid(), 15)", "ended by SIGTERM"),
        ("print('x' * 200_000)", ""),
    ],
)
async def test_how_a_job_ended(code: str, why: str) -> None:
    """Its code, its last error, or the signal."""
    assert (await run(python(code), SETTINGS, 60)).why == why


async def test_a_job_has_limits() -> None:
    """It is nicer, what it started ends with it when its time is over, and it ends when nobody waits for it any more."""
    niceness = await run(python("import os; print(os.nice(0))"), SETTINGS, 60)
    assert niceness.lines == [str(os.nice(0) + 3)]
    slow = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); import time; time.sleep(600)"
    late = await run(python(slow), SETTINGS, 3)
    assert late.why == "not done after 3 s, and ended"
    wait_gone(int(late.lines[0]))
    pids = asyncio.Queue[int]()

    def heard(line: str) -> bool:
        pids.put_nowait(int(line))
        return True

    job = asyncio.create_task(run(python(slow), SETTINGS, 600, Listening(heard, 600)))
    pid = await pids.get()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    wait_gone(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not hold this limit")
async def test_memory_is_limited() -> None:
    """A job that asks for more is refused it, and says so."""
    ended = await run(python("bytearray(2_000_000_000)"), JobSettings(megabytes=500), 60)
    assert ended.why == "ended with code 1: MemoryError"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
def test_a_job_ends_with_its_service() -> None:
    """Nothing of it is left when the process that started it is killed."""
    code = f"import asyncio; from tidemill_retraining.jobs import run; from tidemill_retraining.settings import JobSettings; asyncio.run(run({python(_TELL)!r}, JobSettings(), 600))"
    with subprocess.Popen([sys.executable, "-u", *python(code)[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as service:
        assert service.stdout is not None
        line = next(line for line in iter(service.stdout.readline, b"") if b"pid is" in line)
        job = int(re.findall(rb"pid is (\d+)", line)[0])
        service.send_signal(signal.SIGKILL)
        service.wait()
    wait_gone(job)


_TELL = "import os, time; print('pid is', os.getpid(), '', flush=True); time.sleep(600)"


def test_the_command_of_a_training() -> None:
    """Tidemill's own, named after the run; or a template, as of a Kubernetes job."""
    assert training_command(JobSettings(), "late", 5, "v5")[1:] == ["-m", "tidemill_training", "late", "--no-deploy", "--created", "5"]
    own = JobSettings(command="kubectl apply -f 'job {model}.yaml' --run={run} {version}")
    assert training_command(own, "late", 5, "v5") == ["kubectl", "apply", "-f", "job late.yaml", "--run=5", "v5"]


async def test_a_command_of_ones_own_may_train_in_a_child() -> None:
    """Tidemill's own training is told whose part it is, and ends with it; what a script starts is not, since its parent is the script."""
    told = python("import os; print(os.environ.get('TIDEMILL_PARENT'))")
    assert (await run(told, SETTINGS, 60)).lines == [str(os.getpid())]
    assert (await run(told, JobSettings(nice=3, command="script"), 60)).lines == ["None"]


def test_a_rehearsal_of_a_model_that_takes_texts(tmp_path: Path) -> None:
    """Its golden rows are answered with their texts."""
    made = desk.trained(desk.lived(desk.project()))
    save_artifact(str(tmp_path), made.artifact.manifest, made.artifact.onnx)
    found = rehearse(str(tmp_path), "urgent", made.artifact.manifest.version, made.artifact.manifest.version)
    assert (found.wrong, found.unlike) == ("", "")


def test_a_rehearsal(tmp_path: Path) -> None:
    """Both are timed; a version that answers NaN, or is not there, is wrong; a champion that cannot be timed is said."""
    for kind in ("good", "nan"):
        made = version(kind, kind)
        save_artifact(str(tmp_path), made.manifest, made.onnx)
    good = rehearse(str(tmp_path), "late", "good", "good")
    assert (good.wrong, good.unlike) == ("", "")
    assert good.version_ms > 0
    assert good.champion_ms > 0
    assert "gives no number" in rehearse(str(tmp_path), "late", "nan", "good").wrong
    assert "gone cannot be read" in rehearse(str(tmp_path), "late", "gone", "good").wrong
    assert "gone cannot be read" in rehearse(str(tmp_path), "late", "good", "gone").unlike
