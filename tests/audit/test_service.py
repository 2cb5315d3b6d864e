"""The audit as a service beside the running system: what is altered by hand is found within one period, told, shown, and over once mended."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.features.rig import Worker, until
from tests.operations.conftest import Mirrored

from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import state_key
from tidemill.streams.alerts import read_alerts

pytestmark = pytest.mark.integration


def audited(rig: Mirrored) -> Worker:
    """Start the audit, with a short period."""
    environment = {"TIDEMILL_OFFLINE": rig.offline, "TIDEMILL_AUDIT_PERIOD": "2s", "TIDEMILL_AUDIT_CPU": "0.5"}
    return rig.worker("tidemill_audit", **environment)


def alter(rig: Mirrored, entity: bytes) -> int:
    """Add one to a number of a card's newest tile, as a person with a client would: with a valid checksum. Returns the partition."""
    view = rig.project.views["by_card"]
    kernel, partition = ViewKernel(view), rig.partition("by_card", entity)
    key = state_key(rig.name, view.log, partition, entity)
    state = kernel.decode(rig.store.get(key))  # type: ignore[arg-type]
    state.head[kernel.packing.first(0)] += 1.0
    rig.store.set(key, kernel.encode(state))
    return partition


def tidemill(rig: Mirrored, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    process = rig.command(*arguments)
    output, _ = process.communicate(timeout=180)
    return process.returncode, output.decode()


def logged(worker: Worker, message: str) -> list[dict[str, Any]]:
    """Its log lines with this message."""
    return [line for line in worker.lines() if line["message"] == message]


def test_a_tile_altered_by_hand(rig: Mirrored) -> None:
    """Metric, alert, log and counter-example name it; a rebuild mends it, and then the alert is closed. The commands show the same."""
    rig.settle(1_500)
    audit = audited(rig)
    until(lambda: audit.metric("tidemill_audit_rounds_total") >= 1, audit.tail)
    assert audit.metric("tidemill_audit_differing_values") == 0
    compared = audit.metric("tidemill_audit_values_compared_total")
    assert compared > 100
    partition = alter(rig, b"card-5")
    until(lambda: audit.metric("tidemill_audit_differing_values") == 1, audit.tail)
    until(lambda: [alert.state for alert in asyncio.run(read_alerts(rig.settings, rig.name))] == ["opened"], audit.tail)
    (opened,) = asyncio.run(read_alerts(rig.settings, rig.name))
    assert (opened.view, opened.subject) == ("by_card", f"partition {partition}")
    assert "card-5" in opened.message
    (line,) = logged(audit, "the online store is not what the log says")
    assert (line["entity"], line["partition"]) == ("card-5", partition)
    until(lambda: len(logged(audit, "counter-example")) == 1, audit.tail)
    (example,) = logged(audit, "counter-example")
    assert example["steps"]
    assert [(item["stored"], item["tile_ms"] is not None) for item in example["differences"]] == [
        (example["differences"][0]["expected"] + 1.0, True)
    ]
    code, shown = tidemill(rig, "audit", "by_card")
    assert code == 1
    assert "where the online store differs" in shown
    assert "1 differ" in shown
    code, told = tidemill(rig, "explain", "by_card", "card-5", "--json")
    assert code == 1
    assert [item["slot"] for item in json.loads(told)["differences"]] == [example["differences"][0]["slot"]]
    code, shown = tidemill(rig, "rebuild", "by_card", "--partition", str(partition))
    assert code == 0, shown
    until(lambda: audit.metric("tidemill_audit_differing_values") == 0, audit.tail)
    until(lambda: [alert.state for alert in asyncio.run(read_alerts(rig.settings, rig.name))] == ["opened", "closed"], audit.tail)
    assert tidemill(rig, "audit")[0] == 0


def test_a_deleted_entity_while_events_flow(rig: Mirrored) -> None:
    """An entity that is deleted by hand is found too, and nothing else is, however much is folded meanwhile."""
    rig.settle(1_000)
    audit = audited(rig)
    until(lambda: audit.metric("tidemill_audit_rounds_total") >= 1, audit.tail)
    for _ in range(5):
        rig.produce(200)
    rig.wait_folded()
    view, partition = rig.project.views["by_shop"], rig.partition("by_shop", b"shop-3")
    rig.store.delete(state_key(rig.name, view.log, partition, b"shop-3"))
    until(lambda: audit.metric("tidemill_audit_differing_values") == 1, audit.tail)
    until(lambda: bool(logged(audit, "counter-example")), audit.tail)
    assert {line["entity"] for line in logged(audit, "the online store is not what the log says")} == {"shop-3"}


def test_servers_that_are_away(rig: Mirrored, servers: Any) -> None:
    """Redis away: the audit says so and goes on by itself."""
    rig.settle(300)
    audit = audited(rig)
    audit.wait_ready()
    servers.halt("valkey")
    try:
        audit.wait_saying("redis")
    finally:
        servers.resume("valkey")
    audit.wait_ready()
    rounds = audit.metric("tidemill_audit_rounds_total")
    until(lambda: audit.metric("tidemill_audit_rounds_total") > rounds, audit.tail)
    assert audit.metric("tidemill_audit_differing_values") == 0
