"""`tidemill retrain` and `tidemill retraining`: asking for a run by hand, and what runs did and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.soon import said_soon
from tidemill.cli.target import need, target
from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.errors import BadRequest, NotFound, UnknownModel
from tidemill.local.addresses import Addresses
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.timestamps import rfc3339

commands = typer.Typer(no_args_is_help=True, help="Retrainings: list, show, table.")
Json = Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")]
_TOLD_ALONE = ("asked", "skipped")
_COLUMNS = {
    "model": "string", "run": "int64", "step": "string", "at": "int64", "reason": "string", "trigger": "string", "version": "string",
    "champion": "string", "share": "float64",
}  # fmt: skip


class UnknownRetraining(NotFound):
    """No such run is on the topic."""

    kind = "retraining"


def retrain(model: Annotated[str, typer.Argument(help="A model that declares retrain=tm.Retrain(...).")]) -> None:
    """Ask for a retraining now. The service `retraining` begins it once no other run is open; `tidemill retraining list` shows it."""
    from tidemill.streams.retraining import append_retraining

    at = target()
    if model not in at.declared.models:
        raise UnknownModel(model, list(at.declared.models))
    if at.declared.models[model].retrain is None and at.declared.models[model].online is None:
        raise BadRequest(
            f"model {model!r} is not retrained by tidemill", mend=f"declare retrain=tm.Retrain() in it, or run: tidemill train {model}"
        )
    now = now_ms()
    record = RetrainingRecord(model, now, "asked", now, "asked for by hand", "hand")
    asyncio.run(append_retraining(at.kafka_settings, at.declared.name, record))
    console.print(f"asked for a retraining of {model}: see tidemill retraining list", markup=False, highlight=False)


@commands.command("list")
def list_runs(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    json: Json = False,
) -> None:
    """List the runs, newest first, and what was asked for or held back since: the newest step of each, and why."""
    newest = dict[tuple[str, int, bool], RetrainingRecord]()
    for record in _records():
        if model in (None, record.model):
            newest[record.model, record.run, record.step in _TOLD_ALONE] = record
    found = sorted(newest.values(), key=lambda record: -record.run)[:last]
    if json:
        _print_json(found)
        return
    table = Table("model", "run", "step", "at", "version", "why")
    for record in found:
        table.add_row(*map(Text, [record.model, str(record.run), step_of(record), rfc3339(record.at), record.version, record.reason]))
    console.print(table if found else "no retraining yet")


@commands.command()
def show(
    run: Annotated[str, typer.Argument(metavar="MODEL@RUN", help="A run that `tidemill retraining list` shows.")], json: Json = False
) -> None:
    """Show all steps of a run: what began it, what the gate looked at, and how it decided."""
    model, _, number = run.partition("@")
    records = _records()
    found = [record for record in records if (record.model, str(record.run)) == (model, number)]
    if not found:
        raise UnknownRetraining(run, sorted({f"{record.model}@{record.run}" for record in records}))
    if json:
        _print_json(found)
        return
    for record in found:
        console.print(f"{rfc3339(record.at)}  {step_of(record)}: {record.reason}", markup=False, highlight=False, soft_wrap=True)
        if record.trigger:
            causes = f" ({', '.join(record.causes)})" if record.causes else ""
            console.print(f"    begun by {record.trigger}{causes}", markup=False, highlight=False, soft_wrap=True)
        for finding in record.evidence:
            console.print(f"    {finding.verdict:7} {finding.name}: {finding.said}", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def table(out: Annotated[Path, typer.Argument(help="The Parquet file to write.")]) -> None:
    """Write all steps of all runs as a table, one row each, for SQL or a data frame; causes (ids of alerts) and evidence are JSON text."""
    need("pyarrow", "lake")
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = _records()
    made = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    texts = dict.fromkeys(("causes", "evidence"), pa.string())
    made |= {name: [msgspec.json.encode(getattr(record, name)).decode() for record in records] for name in texts}
    schema = pa.schema([*((name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()), *texts.items()])
    pq.write_table(pa.table(made, schema=schema), out)
    console.print(f"{out}: {len(records):,} steps", markup=False, highlight=False)


def step_of(record: RetrainingRecord) -> str:
    """The step of a record, with its share in canary."""
    return f"canary {record.share:.0%}" if record.step == "canary" else record.step


def status_line(at: Addresses) -> str | None:
    """What `tidemill status` says of the newest run; None where nothing is retrained."""
    if not ((spec := at.project) and at.kafka and "retraining" in at.urls):
        return None
    from tidemill.streams.retraining import read_retraining

    return said_soon("retraining", lambda: read_retraining(KafkaSettings(bootstrap_servers=at.kafka), load_project(spec).name), _newest)


def _newest(records: Sequence[RetrainingRecord]) -> str:
    runs = [record for record in records if record.step not in _TOLD_ALONE]
    return f"{runs[-1].model}@{runs[-1].run} {step_of(runs[-1])}: {runs[-1].reason}" if runs else "no run yet"


def _records() -> list[RetrainingRecord]:
    from tidemill.streams.retraining import read_retraining

    at = target()
    return asyncio.run(read_retraining(at.kafka_settings, at.declared.name))


def _print_json(records: Sequence[RetrainingRecord]) -> None:
    for record in records:
        typer.echo(msgspec.json.encode(record))


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(retrain)
    app.add_typer(commands, name="retraining")
