"""What feature computation is measured against: a bare consumer that folds into a dict, and stock Faust with a table.

Both keep one row per key, without windows, in memory: less than tidemill does. Run as processes:

    python -m benchmarks.features_peers bare|faust TOPIC EVENTS
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import faust
import msgspec
from aiokafka import TopicPartition

from tidemill.kafka.client import consumer
from tidemill.runtime.settings import KafkaSettings


class Values(msgspec.Struct):
    """What the view folds."""

    amount: float


class Paid(msgspec.Struct):
    """A record of the view's topic."""

    time: int
    known: int
    source: tuple[int, int]
    values: Values
    id: str | None = None


decode = msgspec.json.Decoder(Paid).decode


def fold(row: list[float], x: float) -> list[float]:
    """Count, sum, sum of squares, minimum and maximum."""
    return [row[0] + 1, row[1] + x, row[2] + x * x, min(row[3], x), max(row[4], x)]


EMPTY = [0.0, 0.0, 0.0, float("inf"), float("-inf")]


async def bare(topic: str, events: int) -> None:
    """aiokafka and a dict."""
    rows: dict[bytes, list[float]] = {}
    reader = consumer(KafkaSettings.load())
    await reader.start()
    reader.assign([TopicPartition(topic, partition) for partition in range(4)])
    await reader.seek_to_beginning()
    done, started, cpu = 0, time.monotonic(), time.process_time()
    while done < events:
        for records in (await reader.getmany(timeout_ms=1000)).values():
            for record in records:
                rows[record.key] = fold(rows.get(record.key, EMPTY), decode(record.value).values.amount)
            done += len(records)
    report(done, time.monotonic() - started, time.process_time() - cpu)
    await reader.stop()


def stock_faust(topic: str, events: int) -> None:
    """An agent and a table, as Faust's documentation shows them; its changelog goes to Kafka."""
    app = faust.App(
        f"bench-faust-{time.time_ns()}",
        broker=f"kafka://{os.environ['KAFKA_BOOTSTRAP_SERVERS']}",
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=sys.argv[4],
    )
    rows = app.Table("rows", default=lambda: EMPTY, partitions=4)
    state = {"done": 0, "started": 0.0, "cpu": 0.0}

    @app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"))
    async def folding(stream: faust.StreamT[bytes]) -> None:
        async for key, value in stream.items():
            if not state["done"]:
                state.update(started=time.monotonic(), cpu=time.process_time())
            name = bytes(key).decode()
            rows[name] = fold(rows[name], decode(value).values.amount)
            state["done"] += 1
            if state["done"] == events:
                report(events, time.monotonic() - state["started"], time.process_time() - state["cpu"])
                os._exit(0)

    faust.Worker(app, loglevel="error").execute_from_commandline()


def report(events: int, seconds: float, cpu_seconds: float) -> None:
    """One line for the benchmark."""
    print(f"{events / seconds} {events / cpu_seconds}", file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        asyncio.run(bare(sys.argv[2], int(sys.argv[3])))
    else:
        stock_faust(sys.argv[2], int(sys.argv[3]))
