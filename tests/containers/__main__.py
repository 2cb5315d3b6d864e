"""docker-compose.yml for real: images are built, everything starts, a month of flights runs through it, predictions are asked, and it is stopped and started again with its data.

make containers        as root on Debian; some fifteen minutes the first time, three when images are there
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.containers.podman import Podman

from tidemill.errors import TidemillError
from tidemill.local.services import SERVICES, WISHED

ROOT = Path(__file__).parents[2]
NAMES = ["kafka", "valkey", *(service.name for service in (*SERVICES, *WISHED))]
SERVING, INFERENCE = "http://localhost:8002", "http://localhost:8003"
AT = "2013-02-01T00:00:00Z"
ASKED = {
    "features": ["origin_departures:count_1h", "origin_departures:mean_dep_delay_3h", "route_arrivals:last_arr_delay"],
    "entities": {"origin": ["EWR", "JFK", "LGA"], "route": ["EWR-SFO", "JFK-LAX", "LGA-ATL"]},
    "as_of": AT,
}
MODEL = "flight_late"
FLIGHT = {
    "entities": {
        "origin": "EWR", "carrier": "UA", "dest": "SFO", "route": "EWR-SFO", "tailnum": "N38727", "flight_number": "UA1532",
        "departure_minute": 1200, "weekday": 4, "distance": 2565, "duration": 390,
    },
    "time": AT,
}  # fmt: skip


def step(text: str) -> None:
    """Tells what goes on, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def until(what: str, holds: Callable[[], bool], seconds: float = 300) -> None:
    """Returns once something holds. Raises TidemillError."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TidemillError(f"after {seconds:g} s still not: {what}")
        time.sleep(1)


def ready(url: str) -> bool:
    """Whether a service answers that it is ready."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def listens(port: int) -> bool:
    """Whether somebody accepts connections at a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def features() -> Any:
    """What is served for one moment of January."""
    return httpx.post(f"{SERVING}/get-online-features", json=ASKED, timeout=30, trust_env=False).raise_for_status().json()["results"]


def predicted() -> Any:
    """The prediction for one flight of that moment."""
    return httpx.post(f"{INFERENCE}/predict/{MODEL}", json=FLIGHT, timeout=30, trust_env=False).raise_for_status().json()["probability"]


def has_model() -> bool:
    """Whether inference answers with a model."""
    return httpx.get(f"{INFERENCE}/v2/models/{MODEL}/ready", timeout=5, trust_env=False).is_success


def job(podman: Podman, *words: str) -> str:
    """What a job says in its container, without what podman says of itself."""
    return "\n".join(line for line in podman.compose("run", "--rm", "-T", *words).splitlines() if not line.startswith("time="))


def play(podman: Podman, start: str, end: str, *more: str) -> None:
    """Plays flights from outside of the containers' network, as an application would: by Kafka's published port."""
    code = "from tidemill.cli import main; main()"
    command = [sys.executable, "-c", code, "replay-stream", "--start", start, "--end", end, "--speed", "max", *more]
    redis = f"redis://{podman.address('tidemill_valkey_1')}:6379/0"
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": "localhost:29092", "REDIS_URL": redis, "TIDEMILL_INFERENCE_URL": INFERENCE,
        "TIDEMILL_PROJECT": str(ROOT / "examples" / "flights"),
    }  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, **own, "TIDEMILL_OFFLINE": str(podman.folder / "nowhere")})


def cached(podman: Podman) -> bool:
    """Whether an image whose code changed is built without installing its libraries again."""
    probe = ROOT / "shared" / "tidemill" / "containers_probe.py"
    probe.write_text(f'"""A change of code at {time.time()}, so that no earlier run has built it."""\n')
    try:
        said = podman.compose("build", "ingestion")
        return "Successfully installed tidemill" in said and "Collecting" not in said
    finally:
        probe.unlink()


def main() -> int:
    """Runs it all. Returns 0 when everything held."""
    podman = Podman((ROOT / ".tidemill" / "containers").resolve(), ROOT)
    step("base images")
    podman.make_bases()
    step("images of the services")
    podman.compose("build", *(service.name for service in (*SERVICES, *WISHED)), "tidemill", "training")
    if not cached(podman):
        raise TidemillError("a change of code installs libraries again", mend="copy code after the libraries in infra/docker/Dockerfile")
    step("a change of code installs no library again")
    podman.compose("down", "--volumes")
    step("up")
    podman.compose("up", "--detach", "--no-build", *NAMES)
    until("Kafka listens for applications", lambda: listens(29092))  # podman has no timers of its own for health checks
    job(podman, "tidemill", "apply", "--yes")
    until("serving and inference are ready", lambda: ready(SERVING) and ready(INFERENCE))
    step("January, published from outside of the network")
    play(podman, "2013-01-01", "2013-02-01", "--no-predict")
    before = features()
    step(f"served: {[found['values'] for found in before]}")
    step(job(podman, "tidemill", "audit"))
    step("a model of January")
    step(job(podman, "training", MODEL, "--until", "2013-02-01"))
    until("inference has the model", has_model)
    said = predicted()
    step(f"predicted: {said}")
    step("down, and up with the same data")
    podman.compose("down")
    podman.compose("up", "--detach", "--no-build", *NAMES)
    until("serving is ready again", lambda: ready(SERVING))
    until("the same values are served", lambda: features() == before)
    until("inference has the model again", lambda: ready(INFERENCE) and has_model())
    until("the same is predicted", lambda: predicted() == said)
    step("the first week of February, with its predictions")
    play(podman, "2013-02-01", "2013-02-08")
    step(job(podman, "tidemill", "audit"))
    step(job(podman, "tidemill", "replay"))
    podman.compose("down", "--volumes")
    step("all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
