"""Java's ahead-of-time cache of the broker (JEP 483, 514): with it Kafka starts in half the time.

For each Java and set of jars a broker in a folder of its own is started and stopped once; Java then writes which classes it loaded and how.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tidemill.local import kafka, processes
from tidemill.local.processes import HOST, StackError
from tidemill.local.supervisor import child_command
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

_START_SECONDS, _WRITE_SECONDS = 90.0, 120.0
_POLL_SECONDS = 0.05
_LAST_LINES = 5


def make() -> None:
    """Make the cache unless it exists; it takes some ten seconds. Kafka also starts without it. So a failure is a warning, only once: it
    leaves an empty file."""
    cache = kafka.aot_cache(kafka.java(), kafka.class_path())
    if cache.exists():
        return
    try:
        with cache.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not cache.exists():  # another process may have made it meanwhile
                log.info("preparing quick starts of Kafka, once", cache=str(cache))
                _record(Path(folder), cache)
    except (OSError, StackError, subprocess.SubprocessError) as error:
        log.warning("Kafka will start slowly", reason=str(error), mend=f"needs Java 25; to try again delete {cache}")
        with contextlib.suppress(OSError):
            cache.touch()


def _record(home: Path, cache: Path) -> None:
    """Raises StackError when Java writes no cache."""
    ports = processes.assign_ports(home, ["kafka", "kafka-controller"], {})
    kafka.prepare(home / "kafka", ports["kafka"], ports["kafka-controller"])
    (home / "run").mkdir()
    new = cache.with_suffix(".new")
    command = child_command("kafka", str(os.getpid()), kafka.command(f"-XX:AOTCacheOutput={new}"))
    with (home / "log").open("wb") as output:
        broker = subprocess.Popen(command, cwd=home / "kafka", env={**os.environ, "TIDEMILL_HOME": str(home)}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while broker.poll() is None and kafka.not_ready(f"{HOST}:{ports['kafka']}") and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        broker.terminate()
        broker.wait(_WRITE_SECONDS)
    finally:
        broker.kill()
        broker.wait()
    if not new.exists():
        raise StackError(f"Java wrote no cache:\n{processes.last_lines(home / 'log', _LAST_LINES)}")
    new.rename(cache)
