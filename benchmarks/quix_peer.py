"""Quix Streams as a peer of feature computation: five aggregates of one tumbling hour by message key, state in its RocksDB.

It holds its own versions of packages, so it lives in an environment of its own (`make peers`) and runs as a process:

    .venv-peers/bin/python benchmarks/quix_peer.py TOPIC EVENTS FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Mean, Min, Sum


def main() -> None:
    """Reads the topic from its beginning; prints events per second and per CPU second once it has seen enough."""
    topic, events, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    app = Application(
        broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=f"bench-quix-{time.time_ns()}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="ERROR",
    )
    state = {"done": 0, "started": 0.0, "cpu": 0.0}

    def count(_: Any) -> None:
        if not state["done"]:
            state.update(started=time.monotonic(), cpu=time.process_time())
        state["done"] += 1
        if state["done"] == events:
            print(events / (time.monotonic() - state["started"]), events / (time.process_time() - state["cpu"]), flush=True)
            os._exit(0)

    source = app.topic(topic, value_deserializer="json", timestamp_extractor=lambda value, headers, moment, kind: value["time"])
    frame = app.dataframe(source)
    frame["amount"] = frame["values"]["amount"]
    window = frame.tumbling_window(timedelta(hours=1))
    frame = window.agg(n=Count(), total=Sum("amount"), mean=Mean("amount"), least=Min("amount"), most=Max("amount")).current()
    frame.update(count)
    app.run()


if __name__ == "__main__":
    main()
