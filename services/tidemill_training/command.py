"""The command: make the training set of a model, train on it, and deploy the version."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.offline.store import OfflineStore
from tidemill.operations.deploying import Deploying
from tidemill.training.dataset import build, needed_events
from tidemill.training.fitting import check_pipeline
from tidemill_training.app import Choices, Trained, deploy, train
from tidemill_training.bars import StageBars
from tidemill_training.catching_up import wait_archived
from tidemill_training.ending import epoch_ms, note, run_in_force, tell
from tidemill_training.settings import TrainingSettings


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
    parser.add_argument("--no-deploy", action="store_true", help="train, store and track, but do not deploy")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="label rows of your own (Parquet or CSV) instead of outcome events")
    parser.add_argument("--out", type=Path, metavar="FILE", help="only write the training set, as .parquet or .csv")
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

    def stored(trained: Trained) -> None:
        asyncio.run(deploy(project, trained, settings.kafka))

    with StageBars(Console()) as bars:
        choices = Choices(options.labels, options.new, champion=_champion(settings, project, model.name), watch=bars.watch)
        trained = train(project, spec, model, root, until_ms, bars.note, None if options.no_deploy else stored, choices)
    tell(
        trained,
        "its worker (python engine, slower) differs" if trained.manifest.own_pipeline else "ONNX differs",
        deployed=not options.no_deploy,
    )


def _champion(settings: TrainingSettings, project: Project, model: str) -> str | None:
    """The version that answers now; None without one. Raises KafkaUnavailable."""
    history = asyncio.run(Deploying(settings.kafka, project, settings.offline.root).history()).get(model)
    return next((one.version for one in history[-1].versions() if one.role == "champion"), None) if history else None
