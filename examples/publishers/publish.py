"""Publishes the purchases of a CSV file with confluent-kafka: python publish.py localhost:9092 bought purchases.csv

A send that fails may be repeated: an event with the same id is counted once.
"""

import csv
import json
import sys

from confluent_kafka import KafkaError, Message, Producer


def main(servers: str, topic: str, path: str) -> int:
    """Publish every line. Returns 1 when one was not taken."""
    failed = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(message)
            print(f"not published: {error}", file=sys.stderr)

    # enable.idempotence: repeated sends of the client keep their order and are stored once; it implies acks=all
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5})
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            event = {**row, "cds": int(row["cds"]), "dollars": float(row["dollars"])}
            producer.produce(topic, json.dumps(event).encode(), key=row["customer"], on_delivery=delivered)
            producer.poll(0)
    producer.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
