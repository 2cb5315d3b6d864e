"""The command: train one model and deploy it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError, UnknownModel
from tidemill.offline.store import OfflineStore
from tidemill_training.app import Trained, deploy, train
from tidemill_training.catching_up import wait_written
from tidemill_training.settings import TrainingSettings


def main() -> int:
    """Trains and deploys. Returns 0 when a version was made, else 1."""
    parser = argparse.ArgumentParser(prog="tidemill train", description="Train a model from the offline store and deploy it.")
    parser.add_argument("model", help="a model of the project")
    parser.add_argument(
        "--until", type=datetime.fromisoformat, help="use requests and outcomes known before this time (ISO 8601, UTC); default: now"
    )
    parser.add_argument("--no-deploy", action="store_true", help="train, store and track, but do not deploy")
    options = parser.parse_args()
    try:
        settings = TrainingSettings.load()
        project = load_project(settings.project.project)
        if options.model not in project.models:
            raise UnknownModel(options.model, list(project.models))
        until_ms = now_ms() if options.until is None else int(_utc(options.until).timestamp() * 1000)
        model = project.models[options.model]
        asyncio.run(wait_written(project, model, OfflineStore(settings.offline.root), settings.kafka))
        note = lambda text: print(text, flush=True)  # noqa: E731

        def stored(trained: Trained) -> None:
            if not options.no_deploy:
                asyncio.run(deploy(project, trained, settings.kafka))

        trained = train(project, settings.project.project, model, settings.offline.root, until_ms, note, stored)
    except TidemillError as error:
        print(f"tidemill train: {error}", file=sys.stderr)
        return 1
    manifest = trained.manifest
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items())
    run = f"run {trained.run_id}" if trained.run_id else "not in MLflow yet"
    print(f"{manifest.model} {manifest.version}: {metrics}; ONNX differs by at most {manifest.parity.max_abs_diff:.2g}; {run}")
    print("stored, not deployed" if options.no_deploy else "deployed")
    return 0


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
