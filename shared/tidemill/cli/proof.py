"""`tidemill audit` and `tidemill replay`: the proofs, on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

import typer
from rich.table import Table

from tidemill.cli.console import console
from tidemill.cli.target import need, target, tell_unapplied
from tidemill.proof.unknown import UnknownPrediction


def audit(
    view: Annotated[list[str] | None, typer.Argument(metavar="VIEW", help="Views to compare.", show_default="all")] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of the last events of the first differing entity to show.")] = 20,
    all_rows: Annotated[bool, typer.Option("--all-rows", help="Show all its events.")] = False,
) -> None:
    """Compare the online store with the offline rows, byte for byte, beside live traffic. Exit code 1 when a value differs.

    For the first entity that differs it shows the events one by one, with the value after each, and where the store differs. Without
    VIEW it also compares the archive with the events that Kafka still holds.
    """
    need("deltalake", "lake")
    need("hiredis", "store")
    from tidemill.archive.retention import ArchiveSettings
    from tidemill.cli.showing import print_counterexample
    from tidemill.clock import now_ms
    from tidemill.proof.archive_audit import audit_archive
    from tidemill.proof.audit import audit as compare
    from tidemill.proof.audit import counterexample
    from tidemill.proof.partition_audit import AuditReport
    from tidemill.redis.client import redis_client

    at = target()
    project = at.project()

    async def run() -> AuditReport:
        async with redis_client(at.redis_url, timeout_seconds=10) as link:
            report = await compare(project, at.store, link, view or (), console.print)
            first = next((found for found in report.examples if found.entity is not None), None)
            if first is not None:
                shown = await asyncio.to_thread(counterexample, project, at.store, link, first, None if all_rows else rows)
                print_counterexample(console, shown)
            return report

    report = asyncio.run(run())
    for found in report.examples:
        console.print(f"{found.view}[{found.partition}] {found.entity or 'fence'} at {found.fence}: {found.what}", markup=False)
    if report.left_out:
        console.print(f"{report.left_out:,} partitions are being rebuilt and were left out")
    console.print(f"{report.checked:,} values compared, {report.mismatched:,} differ")
    differ = report.mismatched
    if not view:
        kept_since_ms = ArchiveSettings.load().kept_since_ms(now_ms())
        archived = asyncio.run(audit_archive(project, at.store, at.kafka_settings, kept_since_ms, console.print))
        for example in archived.examples:
            console.print(example, markup=False)
        erased = f", {archived.erased:,} of them erased" if archived.erased else ""
        console.print(f"{archived.checked:,} archived events compared{erased}, {archived.mismatched:,} differ")
        differ += archived.mismatched
    raise typer.Exit(1 if differ else 0)


def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Predictions by id.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Without ids: how many, spread evenly over the log.")] = 100,
    shadows: Annotated[bool, typer.Option("--shadows", help="Those of shadows instead.")] = False,
) -> None:
    """Recompute logged predictions from Parquet, by the definitions of their time, and compare every bit. Exit code 1 when one differs.

    A prediction that read a version of a view that was pruned is passed over.
    """
    need("deltalake", "lake")
    need("onnxruntime", "inference")
    from tidemill.catalogue.definitions import NOTHING, project_of
    from tidemill.proof.past import Definition
    from tidemill.proof.replay import logged
    from tidemill.proof.replay import replay as recompute
    from tidemill.streams.catalogue_log import read_history
    from tidemill.streams.following import in_force

    at = target()
    predictions = logged(at.store, ids or None, None if ids else sample, shadows=shadows)
    unknown = set(ids or ()) - {prediction.id for prediction in predictions}
    if unknown:
        raise UnknownPrediction(sorted(unknown)[0])
    records = asyncio.run(read_history(at.kafka_settings, at.declared.name))
    now = records[-1] if records else NOTHING
    tell_unapplied(now, at.declared)
    project = in_force(now, at.declared).project
    history = [Definition(record.time, project_of(record, project.name)) for record in records]
    results = recompute(project, at.store, predictions, console.print, history)
    table = Table("prediction", "what", "logged", "recomputed")
    for result in results:
        for difference in result.differences:
            table.add_row(result.prediction.id, difference.name, repr(difference.logged), repr(difference.recomputed))
    if table.rows:
        console.print(table)
    passed_over = Counter(result.passed_over for result in results if result.passed_over)
    for why, count in passed_over.items():
        console.print(f"{count:,} predictions passed over: {why}", markup=False, highlight=False)
    equal, recomputed = sum(result.equal for result in results), len(results) - passed_over.total()
    console.print(f"{recomputed:,} predictions recomputed, {equal:,} equal bit for bit")
    raise typer.Exit(0 if equal == recomputed else 1)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(audit)
    app.command()(replay)
