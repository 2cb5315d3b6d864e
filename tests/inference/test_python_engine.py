"""A version that its own pipeline serves, in a running service: it answers, it is logged, and when its worker is lost the service goes on."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from functools import cache

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from tests.contract.test_answers import valid
from tests.demo_state import NOW_MS, demo, trained
from tests.inference.conftest import ENTITIES, Service
from tests.inference.troubled_project import ENDS, FAILS, HANGS, NO_NUMBER, Distant
from tests.models.troubled import is_running, until

from tidemill.models.artifact import Artifact, PythonEngine
from tidemill.models.inputs import vector_of
from tidemill.models.pipelines.packages import python_version
from tidemill.runtime.metrics import ENGINE_FAILURES
from tidemill.training.stages.files import digest_of

pytestmark = pytest.mark.integration
MODEL = demo().models["big_tip"]


@cache
def own(version: str) -> Artifact:
    """A version that its own pipeline serves."""
    manifest = trained(MODEL, version).manifest
    file = pickle.dumps(Distant().fit(np.zeros((2, len(manifest.inputs))), [0, 1]))
    engine = PythonEngine(digest_of(file), python_version(), {}, frame=False)
    return Artifact(replace(manifest, engine=engine, onnx_sha256="", golden=[]), file)


def asked(distance: float, **more: object) -> dict[str, object]:
    """A request."""
    return {"entities": ENTITIES | {"distance": distance}, "time": NOW_MS, **more}


async def shown(service: Service) -> dict[str, object]:
    """What the service says of the version that its own pipeline serves."""
    found: dict[str, object] = (await service.http.get("/models/big_tip")).json()["own_pipelines"]["p1"]
    return found


def worker_of(service: Service) -> int:
    """The only worker among this process's children."""
    (pid,) = [pid for pid in _children() if b"tidemill.models.pipelines.worker" in _command(pid)]
    return pid


def _children() -> list[int]:
    found = []
    for task in os.listdir("/proc/self/task"):
        found += [int(pid) for pid in _read(f"/proc/self/task/{task}/children").split()]
    return found


def _command(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> bytes:
    """A file of /proc, empty if its thread or process has ended meanwhile."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def test_a_pipeline_serves_itself(service: Service) -> None:
    """Answers are the pipeline's to the bit, and logged; what a row does to its worker is that row's alone; a retired version leaves no process."""
    await service.deploy(own("p1"))
    pid = worker_of(service)
    pipeline = pickle.loads(own("p1").file)  # noqa: S301 - ours

    answer = valid("predict_response", (await service.predict(asked(12.0, id="own"))).content)
    (record, *_) = (await service.logged())["own"]
    wanted = float(np.float32(pipeline.predict_proba(vector_of(record.inputs).reshape(1, -1))[0, 1]))
    assert (answer["version"], answer["probability"], record.output) == ("p1", wanted, wanted)
    batch = {"instances": [asked(1.0), asked(NO_NUMBER), asked(FAILS), asked(2.0)], "features": False}
    one, no_number, fails, two = (await service.predict(batch)).json()["predictions"]
    assert one["probability"] < two["probability"]
    assert "gives no number for these inputs" in no_number["error"]
    assert "fails on these inputs: ValueError: too far (troubled_project.py:" in fails["error"]
    assert await shown(service) == {"engine": "python engine, slower", "running": True, "failures": 0, "other_packages": []}

    os.kill(pid, signal.SIGKILL)
    replies = await asyncio.gather(*(service.predict(asked(float(i))) for i in range(20)))
    assert {reply.status_code for reply in replies} <= {200, 503}
    await answering(service)
    assert worker_of(service) != pid
    assert not is_running(pid)

    for trouble, kind in ((HANGS, "hangs"), (ENDS, "ended")):
        before = ENGINE_FAILURES.labels("big_tip", "p1", kind)._value.get()
        lost = await service.predict(asked(trouble))
        assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
        assert "the python engine of model big_tip p1 gave no answer: it" in lost.json()["error"]
        assert ENGINE_FAILURES.labels("big_tip", "p1", kind)._value.get() == before + 1
        await answering(service)

    pid = worker_of(service)
    await service.deploy(trained(MODEL, "v2"))
    await asyncio.to_thread(until, lambda: not is_running(pid), "the worker of the retired version ends")
    assert (await service.predict(asked(3.0))).json()["version"] == "v2"


async def answering(service: Service) -> httpx.Response:
    """Asks until it is answered: a worker that was lost is started again."""
    async with asyncio.timeout(180):
        while (reply := await service.predict(asked(5.0))).status_code != 200:
            await asyncio.sleep(0.1)
    return reply
