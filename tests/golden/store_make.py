"""Makes the golden store anew: `python -m tests.golden.store_make`. Only for a change that is meant to make old stores unreadable.

It runs the whole local stack: plays eight hours of the recording, trains both models, plays two more with predictions, asks for some by
tensor, and keeps what is in the stores when all has come to rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import redis
from tests.golden.store import (
    FOLDER,
    OFFLINE,
    REQUESTS,
    STORE,
    all_read,
    by_entity_and_tensor,
    golden,
    online,
    table_names,
    text_of,
    versions,
)

from tidemill.kafka.topics import ensure_topics
from tidemill.local.stack import Stack
from tidemill.offline.store import OfflineStore
from tidemill.proof.replay import logged, replay
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

PATH = "/get-online-features"
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]
MODELS = ("big_tip", "fare")


def run(home: Path, *arguments: str) -> None:
    """A command of a user. Raises CalledProcessError."""
    subprocess.run([*TIDEMILL, *arguments], env={**os.environ, "TIDEMILL_HOME": str(home)}, check=True, timeout=300)


def until(done: Any, seconds: float = 60) -> None:
    """Returns once `done()` is true."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.2)


def fill(stack: Stack, home: Path) -> None:
    """Everything that happens to the system."""
    inference = httpx.Client(base_url=stack.urls["inference"], timeout=180, trust_env=False)
    run(home, "replay-stream", "--end", "2026-01-01T08:00", "--speed", "max", "--step", "2h", "--no-predict")
    for model in MODELS:
        run(home, "train", model, "--until", "2026-01-01T08:00")
        until(lambda path=f"/v2/models/{model}/ready": inference.get(path).is_success)
    run(home, "replay-stream", "--start", "2026-01-01T08:00", "--end", "2026-01-01T10:00", "--speed", "max", "--step", "20m")
    for model in MODELS:
        about = inference.get(f"/v2/models/{model}").raise_for_status().json()
        (tensor,) = about["inputs"]
        width = tensor["shape"][1]
        data = [[i * column / 3 if column != i else None for column in range(width)] for i in range(3)]
        asked = {"inputs": [{"name": tensor["name"], "shape": [3, width], "datatype": "FP32", "data": data}]}
        inference.post(f"/v2/models/{model}/infer", json=asked).raise_for_status()
    entities = {"zone": "nowhere", "driver_id": 3, "distance": 2.5, "payment": "shells", "member": True}
    lone = {"entities": entities | {"zone": None, "distance": None}, "id": "lone"}
    for body in ({"entities": entities, "id": "strange", "subject": "r1"}, lone):
        inference.post("/predict/big_tip", json=body | {"time": "2026-01-01T10:00:00Z"}).raise_for_status()
    run(home, "audit")
    until(lambda: by_entity_and_tensor(Path(stack.offline))[1] == 2 * 3)
    time.sleep(10)  # outcomes are joined and results committed meanwhile; nothing says when the last one is


def keep(stack: Stack) -> list[Any]:
    """Writes the online store's content and returns the answers of feature serving."""
    with redis.Redis.from_url(stack.redis_url) as client:
        keys = sorted(client.scan_iter())
        content = {key.decode(): text_of(client.get(key)) for key in keys}
    (STORE / "redis.json").write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n")
    return [
        httpx.post(stack.urls["serving"] + PATH, json=body, timeout=180, trust_env=False).raise_for_status().json() for body in REQUESTS
    ]


def main() -> None:
    """Makes all files."""
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir()

    def make_topics(stack: Stack) -> None:
        asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(golden())))

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        settings = {"TIDEMILL_FLUSH_SECONDS": "3"}
        with Stack(home, str(FOLDER), prepare=make_topics, environment=settings, timeout_seconds=120) as stack:
            fill(stack, home)
            answers = keep(stack)
            offline = Path(stack.offline)
        for name in [*table_names(), *(f"models/{model}/{version}" for model, version in versions(offline))]:
            shutil.copytree(offline / name, OFFLINE / name)
        for commit in OFFLINE.glob("**/_delta_log/*.json"):  # the first one tells where the table was made
            commit.write_text(commit.read_text().replace(str(offline), "."))
    found = all_read(online(), OFFLINE) | {"answers": answers}
    (STORE / "pinned.json").write_text(json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    results = replay(golden(), OfflineStore(OFFLINE), logged(OfflineStore(OFFLINE)))
    assert all(result.equal for result in results)


if __name__ == "__main__":
    main()
