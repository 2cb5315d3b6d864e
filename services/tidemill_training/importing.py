"""`python -m tidemill_training.importing MODEL FILE --contract CONTRACT`: make a version of a model from a file from elsewhere, and deploy it.

`tidemill models import` runs this with the addresses of the stack.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tidemill.archive.catching_up import wait_archived
from tidemill.clock import now_ms
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.models.artifact import save_artifact
from tidemill.offline.store import OfflineStore
from tidemill.tied import tie_as_told
from tidemill.training.dataset import build, needed_events
from tidemill.training.explained import explained
from tidemill.training.imported.version import Imported, Prepared, make_imported, prepare
from tidemill.training.report.page import page
from tidemill.training.stages.data import DATA, DataRecord, archive_state, set_digest
from tidemill.training.stages.evaluate import evaluated
from tidemill.training.stages.evaluation import EVALUATION, REPORT, Evaluation
from tidemill.training.stages.forms import as_json
from tidemill_training.aliases import align_by_topic
from tidemill_training.app import Trained
from tidemill_training.champion import beside
from tidemill_training.ending import NOT_DEPLOYED, epoch_ms, note, run_in_force, tell
from tidemill_training.seats import NewSeat, add_options, check_seat, deployments_of, seat_of, take_seat
from tidemill_training.settings import TrainingSettings
from tidemill_training.story import story_of
from tidemill_training.tracking import track

SHUFFLED_ROWS = 200
"""Held-out rows whose inputs are shuffled to measure importance: a file is asked row by row, and may be slow."""


class ImportChoices(NamedTuple):
    """What an import may be told beside its file. `alias`: of the version in MLflow; `labels`: see `build`; `champion`: the version that
    answers now, to be compared."""

    alias: str = "challenger"
    labels: Path | None = None
    champion: str | None = None


def import_model(
    project: Project,
    spec: str,
    prepared: Prepared,
    offline_root: str,
    until_ms: int,
    note: Callable[[str], None],
    stored: Callable[[Trained], None] | None = None,
    choices: ImportChoices | None = None,
) -> Trained:
    """Makes the training set, measures and compares the file, stores the version with file, contract and report beside it, calls `stored`,
    and tracks the run, as a training does. Raises TidemillError."""
    choices, store, model = choices or ImportChoices(), OfflineStore(offline_root), prepared.model
    archive = archive_state(store, needed_events(model, own_labels=choices.labels is not None))
    examples = build(project, spec, model, store, until_ms, note, choices.labels)
    data = DataRecord(set_digest(examples), len(examples), len(examples.inputs), archive)
    made = make_imported(prepared, examples, now_ms(), note)
    (manifest, onnx), explaining = explained(made.artifact, examples)
    beside = {
        "training.parquet": examples.to_parquet(),
        **prepared.written,
        **explaining,
        **_report(made, model, data, offline_root, choices),
    }
    artifact, sha256 = save_artifact(offline_root, manifest, onnx, beside)
    imported = Trained(manifest, artifact, sha256, None)
    digests = {f"{name}_sha256": hashlib.sha256(content).hexdigest() for name, content in prepared.written.items()}
    params = {"until_ms": until_ms, "holdout_rows": len(made.fitted.holdout), "data": data.digest, **digests}
    try:
        if stored is not None:
            stored(imported)
    finally:
        run_id = track(offline_root, manifest, onnx, params, note, choices.alias)
    return replace(imported, run_id=run_id)


def _report(made: Imported, model: Model, data: DataRecord, offline_root: str, choices: ImportChoices) -> dict[str, bytes]:
    """What a training stores of its evaluation, by the same code: the figures, the report, and which data it was."""
    beside_it = None if choices.champion is None else beside(offline_root, model.name, choices.champion, made.fitted)
    version = made.artifact.manifest.version
    found = evaluated(model, made.examples, made.fitted, version, data.digest, beside_it, SHUFFLED_ROWS)
    return {
        EVALUATION: as_json(Evaluation).write(found) or b"",
        DATA: as_json(DataRecord).write(data) or b"",
        REPORT: page([found]).encode(),
    }


def main() -> int:
    """Imports and deploys. Returns 0 when that was done, else 1."""
    options = _options()
    return run_in_force(options.model, partial(_run, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidemill models import", description="Make a version of a model from an ONNX file.")
    parser.add_argument("model", help="a model of the project")
    parser.add_argument("file", type=Path, help="the ONNX file")
    parser.add_argument("--contract", type=Path, required=True, help="the JSON file that says what the file takes and gives")
    parser.add_argument("--until", type=datetime.fromisoformat, help="measure on what was known before this time (ISO 8601, UTC)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="measure on label rows of your own (Parquet or CSV) instead of outcome events"
    )
    add_options(parser)
    return parser.parse_args()


def _run(options: argparse.Namespace, settings: TrainingSettings, project: Project) -> None:
    model, root = project.models[options.model], settings.offline.root
    seat = seat_of(options)
    history = deployments_of(settings.kafka, project, root, model.name)
    check_seat(model.name, seat, history)
    prepared = prepare(model, options.file, options.contract)
    until_ms = now_ms() if options.until is None else epoch_ms(options.until)
    asyncio.run(wait_archived(needed_events(model, own_labels=options.labels is not None), OfflineStore(root), settings.kafka))

    def stored(imported: Trained) -> None:
        asyncio.run(take_seat(project, imported, settings.kafka, root, seat or NewSeat()))

    alias = "champion" if seat is not None and seat.role == "champion" else "challenger"
    choices = ImportChoices(alias, options.labels, history[-1].version if history else None)
    with story_of("import", project.name, model, root, note) as finished:
        imported = import_model(project, settings.project.project, prepared, root, until_ms, note, stored if seat else None, choices)
        finished(imported)
    if imported.run_id is not None:  # MLflow answers
        align_by_topic(settings.kafka, project, root, model.name, note)
    tell(imported, "differs", seat.said if seat else NOT_DEPLOYED)


if __name__ == "__main__":
    tie_as_told()
    sys.exit(main())
