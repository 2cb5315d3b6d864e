"""The example publishers, run as a person would run them: Python and Java over Kafka, curl over HTTP. Their events are routed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from jgo.maven import MavenContext
from tests.ingestion.log_tools import read_log, wait_routed

from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.local.kafka import class_path, java
from tidemill.local.services import SERVICES
from tidemill.local.stack import External, Stack
from tidemill.records import ViewRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic, topic_specs, view_topic

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLISHERS = EXAMPLES / "publishers"
COMPILER = ("org.eclipse.jdt", "ecj", "3.44.0")  # the Java of Kafka here runs programs, and has no compiler
MANY = 1_203


@pytest.fixture
def stack(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Stack]:
    """Ingestion of the shop, under names that nobody else uses."""
    text = (EXAMPLES / "shop" / "project.py").read_text()
    text = text.replace('PROJECT = "shop"', f'PROJECT = "{topic_prefix}"').replace(
        'id="order")', f'id="order", topic="{topic_prefix}.bought")'
    )
    (tmp_path / "project.py").write_text(text)
    services = [service for service in SERVICES if service.name == "ingestion"]
    with Stack(tmp_path / "home", project=str(tmp_path), services=services, external=External(kafka=kafka)) as made:
        yield made


@pytest.fixture
def purchases(tmp_path: Path) -> Path:
    """The example's purchases, and more, as a file."""
    lines = (PUBLISHERS / "purchases.csv").read_text().splitlines()
    lines += [f"m{number},2026-11-05T00:00:{number % 60:02}Z,c{number % 7},{number % 5},{number}.25" for number in range(MANY)]
    file = tmp_path / "purchases.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def run(*command: str | Path, **environment: str) -> None:
    """Runs a program. Raises AssertionError with what it said unless it ends well."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=180, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr


def publish_by_java(folder: Path, servers: str, topic: str, file: Path) -> None:
    """Compiles the program against Kafka's own client, and runs it."""
    compiler = MavenContext().project(*COMPILER[:2]).at_version(COMPILER[2]).artifact().resolve()
    jars = class_path()
    client = next(jar for pattern in jars.split(os.pathsep) for jar in Path(pattern).parent.glob("kafka-clients-*.jar"))
    run(java(), "-jar", compiler, "-17", "-cp", client, "-d", folder, PUBLISHERS / "Publisher.java")
    run(java(), "-cp", os.pathsep.join([str(folder), jars]), "Publisher", servers, topic, file)


def rows(file: Path) -> list[tuple[str, str, int, float]]:
    """Order, customer, time in ms and dollars of each purchase."""
    return [
        (row["order"], row["customer"], int(datetime.fromisoformat(row["at"]).timestamp() * 1000), float(row["dollars"]))
        for row in csv.DictReader(file.read_text().splitlines())
    ]


async def test_every_publisher_publishes_every_event(stack: Stack, kafka: str, purchases: Path, tmp_path: Path) -> None:
    """Three publishers publish the same purchases: each event is routed three times with the same values, and none is refused."""
    settings, project = KafkaSettings(bootstrap_servers=kafka), load_project(tmp_path)
    await ensure_topics(settings, topic_specs(project))
    event = project.events["bought"]
    run(sys.executable, PUBLISHERS / "publish.py", kafka, event.topic, purchases)
    publish_by_java(tmp_path / "classes", kafka, event.topic, purchases)
    run(PUBLISHERS / "publish.sh", stack.urls["ingestion"], "bought", purchases, NO_PROXY="127.0.0.1")
    await wait_routed(settings, project)
    assert [record for records in (await read_log(settings, dead_letters_topic(project.name))).values() for record in records] == []
    view, decode = project.views["customers"], decoder(ViewRecord).decode
    log = await read_log(settings, view_topic(project.name, view.log))
    routed = [(record.key.decode(), decode(record.value)) for records in log.values() for record in records]
    expected = rows(purchases)
    assert sorted((found.id, key, found.time, found.values["dollars"]) for key, found in routed) == sorted(expected * 3)
