"""What the tests look at from outside: the processes of a data folder, by the mark they carry, and the topics of a broker."""

import os
import time
from pathlib import Path

import psutil
from aiokafka.admin import AIOKafkaAdminClient
from tests.patience import PATIENCE_SECONDS

STANDINS = Path(__file__).with_name("standins")
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2] / "shared"), str(STANDINS)])


def alive(home: Path) -> list[psutil.Process]:
    """Return every live process that belongs to the data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TIDEMILL_PROCESS", "").startswith(f"{home}:"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_after(home: Path, timeout_seconds: float = PATIENCE_SECONDS) -> list[psutil.Process]:
    """Wait until no process of the folder is alive, and return those that are after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while alive(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(home)


async def topics(bootstrap: str) -> list[str]:
    """Return the names of all topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()
