"""Java's ahead-of-time cache of the broker: made once, used by every start, and never in the way."""

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tidemill.local import kafka, kafka_aot, processes


def cache_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the cache lie in a folder of the test's own."""
    cache = folder / "broker.aot"
    monkeypatch.setattr(kafka, "aot_cache", lambda _runtime, _jars: cache)
    return cache


def test_each_java_and_each_set_of_jars_has_its_own(tmp_path: Path) -> None:
    """Another Java, the same one after an upgrade in its place, and other jars each have another file, beside the jars."""

    def cache(runtime: str, jars: str) -> Path:
        return kafka.aot_cache(str(tmp_path / runtime), f"{tmp_path}/{jars}/jars/*:{tmp_path}/{jars}/modules/*")

    found = set()
    for runtime in ("one", "two"):
        (tmp_path / runtime).touch()
        for jars in ("a", "b"):
            assert cache(runtime, jars).parent == tmp_path / jars
            found.add(cache(runtime, jars).name)
    (tmp_path / "two").unlink()
    (tmp_path / "two").touch()
    os.utime(tmp_path / "two", (1, 1))
    assert len({*found, cache("two", "b").name}) == 5


@pytest.mark.integration
def test_made_once_and_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two that want it at once one makes it; a broker that may not start without it starts with it, in the very place a later start looks."""
    cache = cache_in(tmp_path, monkeypatch)
    both = [threading.Thread(target=kafka_aot.make) for _ in range(2)]
    with capture_logs() as logs:
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        kafka_aot.make()
    assert [entry["log_level"] for entry in logs] == ["info"]
    assert cache.stat().st_size > 1 << 20
    ports = processes.assign_ports(tmp_path, ["kafka", "controller"], {})
    kafka.prepare(tmp_path / "kafka", ports["kafka"], ports["controller"])
    with (tmp_path / "log").open("wb") as output:
        command = kafka.command("-XX:AOTMode=on")
        with subprocess.Popen(command, cwd=tmp_path / "kafka", stdout=output, stderr=output) as broker:
            while kafka.not_ready(f"127.0.0.1:{ports['kafka']}"):
                assert broker.poll() is None, processes.last_lines(tmp_path / "log", 20)
                time.sleep(0.05)
            broker.terminate()


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jars in a place where nothing may be added: a warning, and Kafka starts as before."""
    cache = cache_in(tmp_path / "nowhere", monkeypatch)
    with capture_logs() as logs:
        kafka_aot.make()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert not cache.exists()
    assert not any("AOTCache" in word for word in kafka.command())


@pytest.mark.integration
def test_a_java_without_it_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Java that does not know the option makes no cache: that is a warning with its mend, it is not tried again, and Kafka starts as before."""
    cache = cache_in(tmp_path, monkeypatch)
    older = tmp_path / "java"
    older.write_text(f"""#!/bin/sh
case "$*" in *AOTCacheOutput*) echo "Unrecognized VM option 'AOTCacheOutput'"; exit 1;; esac
exec {kafka.java()} "$@"
""")
    older.chmod(0o755)
    monkeypatch.setattr(kafka, "java", lambda: str(older))
    with capture_logs() as logs:
        kafka_aot.make()
        kafka_aot.make()
    (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert "Unrecognized VM option" in warning["reason"]
    assert str(cache) in warning["mend"]
    assert not any("AOTCache" in word for word in kafka.command())
