"""How the commands begin and end: by what is in force, and with the version that was made, or with an error."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError, UnknownModel
from tidemill.streams.following import read_in_force
from tidemill_training.app import Trained
from tidemill_training.applied import check_applied
from tidemill_training.settings import TrainingSettings

NOT_DEPLOYED = "stored, not deployed"


def run_in_force(model: str, work: Callable[[TrainingSettings, Project], None]) -> int:
    """Does the work by the project in force, once the model is in force as it is declared. Returns 0 when that was done, 130 when it was interrupted, else 1."""
    try:
        settings = TrainingSettings.load()
        declared = load_project(settings.project.project)
        if model not in declared.models:
            raise UnknownModel(model, list(declared.models))
        now = asyncio.run(read_in_force(settings.kafka, declared))
        check_applied(now.definitions, declared, declared.models[model], note)
        work(settings, now.project)
    except TidemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what serves is as it was, and the same command goes on with what is done", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def tell(trained: Trained, differs: str, done: str) -> None:
    """Says what was made. `differs`: what its parity is about; `done`: whether it serves, and as what."""
    manifest = trained.manifest
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items())
    run = f"run {trained.run_id}" if trained.run_id else "not in MLflow yet"
    print(f"{manifest.model} {manifest.version}: {metrics}; {differs} by at most {manifest.parity.max_abs_diff:.2g}; {run}")
    print(done)


def note(text: str) -> None:
    """A line about progress, at once."""
    print(text, flush=True)


def epoch_ms(moment: datetime) -> int:
    """A moment; without a zone it is UTC."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
