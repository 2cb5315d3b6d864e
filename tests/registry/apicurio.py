"""A real schema registry: Apicurio's application, from Maven, on the Java that Kafka runs on. It speaks Confluent's interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from jgo.maven import MavenContext
from tests.patience import PATIENCE_SECONDS

from tidemill.local.kafka import java
from tidemill.local.processes import free_port

VERSION = "3.3.3"


def unpacked(folder: Path) -> Path:
    """The application in a folder that is kept, 170 MB."""
    home = folder / f"apicurio-registry-{VERSION}"
    if not home.exists():
        project = MavenContext().project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
        archive = project.artifact(classifier="all", packaging="tar.gz").resolve()
        half = folder / f"{home.name}.{os.getpid()}"
        with tarfile.open(archive) as found:
            found.extractall(half, filter="data")
        try:
            half.rename(home)
        except OSError:  # another process was faster
            shutil.rmtree(half)
    return home


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Runs it, empty; yields the address of the interface that Confluent's clients use."""
    port = free_port(set())
    management = free_port({port})
    ours = {
        "QUARKUS_HTTP_HOST": "127.0.0.1", "QUARKUS_HTTP_PORT": str(port),
        "QUARKUS_MANAGEMENT_HOST": "127.0.0.1", "QUARKUS_MANAGEMENT_PORT": str(management),
    }  # fmt: skip
    command = [java(), "-Xmx300m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", "quarkus-run.jar"]
    with (folder / "apicurio.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=unpacked(folder), env=os.environ | ours, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(url):
            assert process.poll() is None, (folder / "apicurio.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the registry did not start"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/subjects", trust_env=False).is_success
    except httpx.TransportError:
        return False
