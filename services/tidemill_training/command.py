"""The command: make the training set of a model, train on it, and deploy the version."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from tidemill.archive.catching_up import wait_archived
from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.offline.store import OfflineStore
from tidemill.training.dataset import build, needed_events
from tidemill.training.fitting import check_pipeline
from tidemill_training.aliases import align_by_topic
from tidemill_training.app import Choices, Trained, train
from tidemill_training.bars import StageBars
from tidemill_training.ending import NOT_DEPLOYED, epoch_ms, note, run_in_force, tell
from tidemill_training.seats import NewSeat, add_options, check_seat, deployments_of, seat_of, take_seat
from tidemill_training.settings import TrainingSettings
from tidemill_training.story import story_of


def main() -> int:
    """Trains and deploys, or writes the training set. Returns 0 when that was done, else 1."""
    options = _options()
    return run_in_force(options.model, partial(_run, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidemill train", description="Train a model from the offline store and deploy it.")
    parser.add_argument("model", help="a model of the project")
    parser.add_argument(
        "--until", type=datetime.fromisoformat, help="use requests and outcomes known before this time (ISO 8601, UTC); default: now"
    )
    parser.add_argument("--new", action="store_true", help="begin a run, also where one was ended before it was done and could go on")
    add_options(parser)
    parser.add_argument("--labels", type=Path, metavar="FILE", help="label rows of your own (Parquet or CSV) instead of outcome events")
    parser.add_argument("--out", type=Path, metavar="FILE", help="only write the training set, as .parquet or .csv")
    parser.add_argument(
        "--created",
        type=int,
        metavar="MS",
        help="the moment, in ms since 1970, after which run and version are named; such a run goes on alone",
    )
    options = parser.parse_args()
    if options.out is not None and options.out.suffix not in (".parquet", ".csv"):
        parser.error(f"--out {options.out}: name a .parquet or a .csv file")
    return options


def _run(options: argparse.Namespace, settings: TrainingSettings, project: Project) -> None:
    model, spec, root = project.models[options.model], settings.project.project, settings.offline.root
    until_ms = None if options.until is None else epoch_ms(options.until)
    needed = needed_events(model, own_labels=options.labels is not None)
    if options.out is None:
        check_pipeline(model)
    asyncio.run(wait_archived(needed, OfflineStore(root), settings.kafka))
    if options.out is not None:
        examples = build(project, spec, model, OfflineStore(root), until_ms or now_ms(), note, options.labels)
        examples.write(options.out)
        print(f"{options.out}: {len(examples):,} rows of {len(examples.inputs)} inputs")
        return

    seat, history = seat_of(options), deployments_of(settings.kafka, project, root, model.name)
    check_seat(model.name, seat, history)
    champion = history[-1].version if history else None

    def stored(trained: Trained) -> None:
        asyncio.run(take_seat(project, trained, settings.kafka, root, seat or NewSeat()))

    with story_of("train", project.name, model, root, note) as finished, StageBars(Console()) as bars:
        choices = Choices(
            options.labels,
            options.new,
            options.created,
            champion=champion,
            watch=bars.watch,
            role=seat.role if seat else "champion",
            ray=settings.search.ray,
        )
        trained = train(project, spec, model, root, until_ms, bars.note, stored if seat else None, choices)
        finished(trained)
    if trained.run_id is not None:  # MLflow answers
        align_by_topic(settings.kafka, project, root, model.name, note)
    differs = "its worker (python engine, slower) differs" if trained.manifest.own_pipeline else "ONNX differs"
    tell(trained, differs, seat.said if seat else NOT_DEPLOYED)
