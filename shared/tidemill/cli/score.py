"""`tidemill score`: what a version of a model answers to each row of a table."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import need, offline_target, project_spec, target
from tidemill.cli.times import to_ms
from tidemill.clock import now_ms
from tidemill.errors import NotDeployed, TidemillError, UnknownModel
from tidemill.local.addresses import find
from tidemill.timestamps import rfc3339

if TYPE_CHECKING:
    from rich.progress import Progress

    from tidemill.declarations.project import Project
    from tidemill.offline.store import OfflineStore
    from tidemill.scoring.score import Scored, Scorer
    from tidemill.scoring.tables import RequestTable
    from tidemill.training.lineage_events import JobStory

SHOWN = 10


def score(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A model; by default its champion, without a stack the newest.")],
    table: Annotated[Path, typer.Argument(help="Rows to score: .parquet, .csv or .jsonl.")],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet, .csv or .jsonl.")],
    time: Annotated[str | None, typer.Option(help="The moment of rows without a time (ISO 8601, UTC).", show_default="now")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the archive has all events that are published by now.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if a row is refused.")] = False,
) -> None:
    """Score a table by the code that answers requests. It has a row for each request: the values that `/predict` takes as `entities`, and
    `time`; or all inputs of the model by name, as `tidemill train-set` writes them.

    Features are those at the row's moment, from the archive, as training reads them; events that are published and not archived yet are waited
    for, up to a minute. The result has the rows with version, output, degraded
    and error; a row that `/predict` would refuse has an error. It is written whole or not at all.
    """
    need("deltalake", "lake")
    need("onnxruntime", "inference")
    from tidemill.models.artifact import stored_artifact
    from tidemill.scoring.score import Scorer, ScoreWatch, result_columns
    from tidemill.scoring.tables import check_out, read_table, write_table
    from tidemill.training.lineage_events import file_of, told

    moment_ms = now_ms() if time is None else to_ms(time)
    check_out(out, table)
    project, store = offline_target()
    name, version = _chosen(model, project, store)
    scorer = Scorer(project, store, stored_artifact(store.url, name, version), project_spec())
    rows = read_table(table)
    ready = scorer.has_inputs(rows)
    reach = "" if ready else _reach(scorer, store, wait=wait)
    story = _story(scorer, project, store, table, ready=ready)
    with told(story, _say), _progress() as bar:
        task = bar.add_task(f"{name}@{version}", total=len(rows))
        watch = ScoreWatch(lambda text: bar.update(task, description=text), lambda done: bar.update(task, completed=done))
        scored = scorer.score(rows, moment_ms, watch)
        refused = [row for row, found in enumerate(scored) if found.answer is None]
        _tell(rows, scored, refused)
        if refused and strict:
            raise TidemillError(f"nothing was written: {len(refused):,} rows are refused", mend="correct them, or leave out --strict")
        write_table(out, result_columns(rows, scored, scorer.manifest), set(refused))
        story.made(file_of(out))
    degraded = sum(bool(found.degraded) for found in scored)
    where = "the inputs of the table" if ready else f"features as of {rfc3339(moment_ms)} or of the row's time, {reach}"
    _say(f"{out}: {len(rows):,} rows by {name}@{version}, {len(refused):,} refused, {degraded:,} degraded; {where}")


def _chosen(model: str, project: Project, store: OfflineStore) -> tuple[str, str]:
    """Model and version that are meant. Raises UnknownModel, NotDeployed."""
    from tidemill.models.artifact import stored_manifest, stored_versions
    from tidemill.operations.deploying import Deploying

    name, _, version = model.partition("@")
    if name not in project.models:
        raise UnknownModel(name, list(project.models))
    if version:
        return name, stored_manifest(store.url, name, version)[0].version
    if find() or os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        history = asyncio.run(Deploying(target().kafka_settings, project, store.url).history()).get(name, [])
        if history:
            return name, history[-1].version
    versions = [stored_manifest(store.url, name, found)[0] for found in stored_versions(store.url, name)]
    if not versions:
        raise NotDeployed(name, project.models[name].making)
    return name, max(versions, key=lambda manifest: manifest.created).version


def _reach(scorer: Scorer, store: OfflineStore, *, wait: bool) -> str:
    """Up to which moment the archive has events, as far as that can be known. Raises TidemillError when it lags for too long."""
    from tidemill.archive.catching_up import wait_archived
    from tidemill.training.dataset import needed_events

    if not wait:
        return "from what the archive has: it was not waited for"
    if not (find() or os.environ.get("KAFKA_BOOTSTRAP_SERVERS")):
        return "from what the archive has: no Kafka runs here"
    with console.status("waiting for the archive ..."):
        reached = asyncio.run(wait_archived(needed_events(scorer.model, own_labels=True), store, target().kafka_settings))
    return f"from all events published up to {rfc3339(reached)}"


def _story(scorer: Scorer, project: Project, store: OfflineStore, table: Path, *, ready: bool) -> JobStory:
    """What the scoring reads, as OpenLineage's events tell it."""
    from tidemill.training.dataset import needed_events
    from tidemill.training.lineage_events import JobStory, archived, file_of, version_of, views_of
    from tidemill.training.stages.data import archive_state

    manifest = scorer.manifest
    story = JobStory(project.name, f"score.{manifest.model}", "SCORING")
    story.reads(file_of(table), version_of(project.name, manifest.model, manifest.version))
    if not ready:
        story.reads(*views_of(project.name, scorer.model.views))
        story.reads(*archived(store.url, archive_state(store, needed_events(scorer.model, own_labels=True))))
    return story


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console)


def _tell(rows: RequestTable, scored: Sequence[Scored], refused: Sequence[int]) -> None:
    for row in refused[:SHOWN]:
        _say(f"{rows.where(row)}: {scored[row].error}")
    if len(refused) > SHOWN:
        _say(f"{len(refused) - SHOWN:,} more rows are refused: see the column error")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(score)
