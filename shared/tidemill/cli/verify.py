"""`tidemill verify`: served values, logged predictions and training sets beside SQL over the archive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.showing import moment, number
from tidemill.cli.target import Target, need, target
from tidemill.cli.times import to_ms
from tidemill.clock import now_ms
from tidemill.errors import ArtifactError, BadRequest, UnknownModel, UnknownTable, UnknownView

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.catalogue.definitions import Definitions
    from tidemill.declarations import FeatureView, Model
    from tidemill.declarations.project import Project
    from tidemill.proof.past import Past
    from tidemill.verify.checks import LoggedInputs
    from tidemill.verify.compare import Compared, Example

errors = Console(stderr=True)


def verify(
    view: Annotated[list[str] | None, typer.Option(help="Views to verify.", show_default="all")] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many entities of a view, predictions and training rows.")] = 200,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    training_set: Annotated[str | None, typer.Option(metavar="FILE", help="Verify this training set, and nothing else.")] = None,
    model: Annotated[str | None, typer.Option(help="The model of the training set.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="The moment until which the set was made.", show_default="now")] = None,
) -> None:
    """Compute sampled features again in SQL, from the archived events, and compare them with what is served and what predictions logged.

    The SQL is written from the documentation and shares no code with what computes features. Exit code 1 when a value differs.
    """
    need("deltalake", "lake")
    need("duckdb", "verify")
    from tidemill.catalogue.definitions import project_of
    from tidemill.proof.past import Definition, Past
    from tidemill.streams.catalogue_log import read_history

    at = target()
    project = at.project()
    if training_set is not None:
        found = _training_set(at, training_set, _model(project, model), now_ms() if until is None else to_ms(until), sample, seed)
    else:
        views = _views(project, view)
        history = asyncio.run(read_history(at.kafka_settings, at.declared.name))
        past = Past([Definition(record.time, project_of(record, project.name)) for record in history], views)
        archives = partial(_archive, at, history)
        found = _served(at, views, archives, sample, seed) + _logged(at, project, past, views, archives, sample, seed)
    show(found)
    raise typer.Exit(1 if any(each.differ for each in found) else 0)


def _views(project: Project, names: Sequence[str] | None) -> list[FeatureView]:
    for name in names or ():
        if name not in project.views:
            raise UnknownView(name, list(project.views))
    return [view for view in project.views.values() if not names or view.name in names]


def _model(project: Project, name: str | None) -> Model:
    if name is None:
        raise BadRequest("a training set is of a model", mend="pass --model")
    if name not in project.models:
        raise UnknownModel(name, list(project.models))
    return project.models[name]


def _begin(what: str) -> None:
    """Says on a terminal what begins now, since each may take a minute."""
    if errors.is_terminal:
        errors.print(what, style="dim", markup=False, highlight=False)


def _archive(at: Target, history: Sequence[Definitions], view: FeatureView) -> pa.Table:
    """The archive of a view, without files of history that its version was filled without."""
    from tidemill.verify.checks import view_archive

    _begin(f"{view.name}: reads its archived events")
    return view_archive(at.store, view, history[-1].loads_of(view.plain_name, view.version) if history else None)


def _served(
    at: Target, views: Sequence[FeatureView], archives: Callable[[FeatureView], pa.Table], sample: int, seed: int
) -> list[Compared]:
    from tidemill.verify.checks import check_served
    from tidemill.verify.compare import SETTLED_MS
    from tidemill.verify.served import over_http

    if not views:
        return []
    names = ", ".join(view.name for view in views)
    console.print(f"served: {names}: asks, then waits {SETTLED_MS // 1000} s until the archive has what was seen", highlight=False)
    return check_served(views, archives, over_http(at.url("serving")), now_ms, lambda: time.sleep(SETTLED_MS / 1000), sample, seed)


def _logged(
    at: Target,
    project: Project,
    past: Past,
    views: Sequence[FeatureView],
    archives: Callable[[FeatureView], pa.Table],
    sample: int,
    seed: int,
) -> list[Compared]:
    """Each prediction by the views that it read, as they were declared then."""

    def records(view: FeatureView, entities: Collection[str]) -> pa.Table:
        _begin(f"{view.name}: compares what predictions logged of {len(entities):,} entities")
        return records_of(at.store, view, entities)

    from tidemill.verify.checks import check_logged
    from tidemill.verify.compare import added
    from tidemill.verify.stamped import records_of

    asked = {view.name for view in views}
    found: list[Compared] = []
    try:
        logged = at.store.predictions(["id", "model"]).to_pydict()
    except UnknownTable:
        return found
    for model in project.models.values():
        mine = [id for id, of_model in zip(logged["id"], logged["model"], strict=True) if of_model == model.name]
        if mine:
            chosen = random.Random(seed).sample(mine, min(sample, len(mine)))
            rows = at.store.predictions(["id", "model", "version", "time", "served", "inputs", "entities", "stamp"], chosen).to_pylist()
            groups, passed_over = past.grouped(rows)
            left = f", {passed_over:,} passed over: their view is gone, or was changed within a minute" if passed_over else ""
            console.print(f"logged: {model.name}: {len(chosen):,} of {len(mine):,} predictions{left}", highlight=False)
            inputs = _inputs(at, model, sorted({row["version"] for row in rows}))
            for seen, group in groups:
                read = [view for view in seen if view.name in asked]
                events = {view.name: archives(view) for view in read}
                found += check_logged(read, inputs, events, group, model.name, records)
    return added(found)


def _inputs(at: Target, model: Model, versions: Sequence[str]) -> dict[str, LoggedInputs]:
    """The inputs of each version; without those of which the artifact is gone."""
    from tidemill.models.artifact import stored_artifact

    found: dict[str, LoggedInputs] = {}
    for version in versions:
        try:
            found[version] = {item.name: item.categories for item in stored_artifact(at.offline, model.name, version).manifest.inputs}
        except ArtifactError as error:
            console.print(f"logged: passed over: {error.message}", markup=False, highlight=False)
    return found


def _training_set(at: Target, path: str, model: Model, until_ms: int, sample: int, seed: int) -> list[Compared]:
    from tidemill.verify.checks import archived, check_training_set, known_until
    from tidemill.verify.files import training_file
    from tidemill.verify.labels import outcome_fields, question_fields

    table = training_file(Path(path), model)

    def events(event: Any, fields: Sequence[str]) -> pa.Table:
        _begin(f"{event.name}: reads its archived events")
        return archived(at.store, event, fields)

    announced = events(model.on, question_fields(model))
    outcomes = events(model.outcome.source, [model.outcome.subject, *outcome_fields(model)])
    views = {view.name: _archive(at, [], view) for view in model.views}
    _begin(f"{model.name}: compares sampled rows")
    return check_training_set(model, table, (announced, outcomes), views, known_until(at.store, model, until_ms), sample, seed)


def show(found: Sequence[Compared]) -> None:
    """Prints a table of what was compared, and the first values that differ."""
    table = Table("compared with SQL", "values", "differ", "undecided", "withheld")
    for each in found:
        table.add_row(Text(each.what), *(f"{count:,}" for count in (each.values, each.differ, each.undecided, each.withheld)))
    console.print(table)
    for each in found:
        for example in each.examples:
            _show_example(each, example)
    values, differ = sum(each.values for each in found), sum(each.differ for each in found)
    console.print(f"{values:,} values compared, {differ:,} differ", highlight=False)


def _show_example(compared: Compared, example: Example) -> None:
    console.print(
        f"{compared.what}: {example.what}: {example.feature} is {example.told}, by SQL {example.sql}", markup=False, highlight=False
    )
    for event in example.events:
        values = ", ".join(f"{name} {number(value)}" for name, value in event.items() if name not in ("known", "time", "id", "counts"))
        fate = "" if event["counts"] else " (does not count: late, or published twice)"
        told = f"known {moment(event['known'])}, time {moment(event['time'])}, id {event['id'] or '-'}: {values}{fate}"
        console.print(f"    {told}", markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(verify)
