"""The stages of a training, each from what earlier ones gave."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace as replaced

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_model
from tidemill.errors import ArtifactError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest, stored_manifest, stored_versions
from tidemill.offline.store import OfflineStore
from tidemill.training.classes import in_classes
from tidemill.training.dataset import Note, TrainingSet, build, needed_events
from tidemill.training.fitting import Fitted, fit, is_classifier_of
from tidemill.training.report.page import page
from tidemill.training.stages.check import check
from tidemill.training.stages.chosen import ChosenPipeline, as_chosen
from tidemill.training.stages.data import DataRecord, archive_state, set_digest
from tidemill.training.stages.evaluate import evaluate
from tidemill.training.stages.evaluation import Evaluation
from tidemill.training.stages.files import digest_of
from tidemill.training.stages.findings import Findings
from tidemill.training.stages.forms import AS_PICKLE, AS_TEXT, as_json, as_msgpack
from tidemill.training.stages.keys import described
from tidemill.training.stages.run import Run, StageOutput
from tidemill.training.stages.search import Best, search
from tidemill.training.stages.select import Chosen, choose
from tidemill.training.stages.serving import seen_differently
from tidemill.training.stages.split import CutSet, cut
from tidemill.training.version import Exported, export
from tidemill_training.champion import beside


class DatedSet(msgspec.Struct, frozen=True):
    """A training set, and which data it is."""

    examples: TrainingSet
    data: DataRecord


class Stages:
    """The stages of one run. Each gives what it made, or what an earlier process of the same run made."""

    def __init__(
        self,
        run: Run,
        project: Project,
        spec: str,
        model: Model,
        offline_root: str,
        labels: Path | None,
        note: Note,
        ray: str | None = None,
    ) -> None:
        self._ray = ray
        self._run, self._project, self._spec, self._model = run, project, spec, model
        self._store, self._labels, self._note = OfflineStore(offline_root), labels, note
        self.chosen = ChosenPipeline()

    @property
    def model(self) -> Model:
        """The model with the pipeline that is fitted: of the chosen inputs, with the best parameters."""
        return self._model

    def set(self) -> StageOutput[DatedSet]:
        """The training set, from the archive as it is now."""
        declared, definitions = _declared(self._model)
        record = self._run.record
        return self._run.stage(
            "set", AS_PICKLE, self._build, lambda made: _told(made.data),
            until_ms=record.until_ms, labels=record.asked.labels, model=declared, views=definitions,
        )  # fmt: skip

    def check(self, examples: StageOutput[DatedSet]) -> StageOutput[Findings]:
        """What is wrong with the set; each finding is told. Raises TidemillError when it is refused."""
        rows, training = examples.value.examples, self._model.training
        before = self._newest()

        def checked() -> Findings:
            classifier = is_classifier_of(self._model)
            labelled, classes = in_classes(self._model, rows, classifier=classifier)
            found = check(self._model, labelled, before, "probabilities" if classes else "probability" if classifier else "value")
            return Findings(found.inputs, [*found.found, *seen_differently(self._store, self._model.name, rows)])

        expected = {name: repr(expect) for name, expect in training.expect.items()}
        made = self._run.stage(
            "check", as_json(Findings), checked, _found, {"set": examples.digest},
            expect=expected, trusted=training.trusted, before=before.version if before else None,
        )  # fmt: skip
        for finding in made.value.found:
            self._note(f"{finding.level}: {finding}")
        made.value.refuse(self._model.name)
        return made

    def _newest(self) -> Manifest | None:
        """Of the newest version that is stored and can be read."""
        for version in reversed(stored_versions(self._store.url, self._model.name)):
            if version < self._run.record.run:
                with contextlib.suppress(ArtifactError):
                    return stored_manifest(self._store.url, self._model.name, version)[0]
        return None

    def split(self, examples: StageOutput[DatedSet]) -> StageOutput[CutSet]:
        """The set with the held-out rows at its end."""
        split, rows = self._model.training.split, examples.value.examples
        made = self._run.stage(
            "split",
            AS_PICKLE,
            lambda: cut(self._model.name, rows, split),
            lambda made: made.said,
            {"set": examples.digest},
            split=_plain(split),
        )
        return StageOutput(CutSet.of(rows, made.value), digest_of((examples.digest + made.digest).encode()))

    def select(self, rows: StageOutput[CutSet]) -> None:
        """Chooses inputs, if the model declares it: its pipeline takes those alone from now on."""
        select = self._model.training.select
        if select is None:
            return
        made = self._run.stage(
            "select", as_json(Chosen), lambda: choose(self._model, rows.value.before, select, self._note, self._run.watch),
            lambda found: f"{len(found.inputs)} of {len(found.means)} inputs: {', '.join(found.inputs)}",
            {"split": rows.digest}, select=_plain(select), pipeline=described(self._model), weights=self._model.training.weights,
        )  # fmt: skip
        self.chosen = replaced(self.chosen, inputs=made.value.inputs)
        self._model = as_chosen(self._model, rows.value.examples.inputs, ChosenPipeline(inputs=made.value.inputs))

    def search(self, rows: StageOutput[CutSet]) -> None:
        """Searches parameters, if the model declares it: its pipeline has the best from now on."""
        wanted = self._model.training.search
        if wanted is None:
            return
        made = self._run.stage(
            "search", as_json(Best),
            lambda: search(self._model, self._spec, rows.value.before, self._run.work, rows.digest, self._note, self._run.watch, self._ray), _best, {"split": rows.digest}, search=_plain(wanted), pipeline=described(self._model), weights=self._model.training.weights,
        )  # fmt: skip
        self.chosen = replaced(self.chosen, parameters=made.value.parameters)
        self._model = as_chosen(self._model, rows.value.examples.inputs, ChosenPipeline(parameters=made.value.parameters))

    def fit(self, rows: StageOutput[CutSet]) -> StageOutput[Fitted]:
        """The pipeline, fitted without the held-out rows and with them."""
        examples = rows.value.examples

        def fitted() -> Fitted:
            self._note(f"fitting on {len(examples):,} rows of {len(examples.inputs)} inputs")
            return fit(self._model, examples, rows.value.cuts)

        training = self._model.training
        return self._run.stage(
            "fit", AS_PICKLE, fitted, _scored, {"split": rows.digest},
            pipeline=described(self._model), weights=training.weights, metrics=sorted(training.metrics),
        )  # fmt: skip

    def evaluate(self, rows: StageOutput[CutSet], data: str, fitted: StageOutput[Fitted], champion: str | None) -> StageOutput[Evaluation]:
        """How good it is, where, and beside what. `champion`: the version that serves now."""

        def evaluated() -> Evaluation:
            self._note("measuring on the held-out rows")
            compared = None if champion is None else beside(self._store.url, self._model.name, champion, fitted.value)
            return evaluate(self._model, rows.value.examples, fitted.value, self._run.record.run, data, compared)

        read = {"split": rows.digest, "fit": fitted.digest}
        return self._run.stage(
            "evaluate", as_json(Evaluation), evaluated, _judged, read,
            champion=champion, segments=self._model.training.segments, pipeline=described(self._model),
        )  # fmt: skip

    def report(self, evaluation: StageOutput[Evaluation]) -> StageOutput[str]:
        """The report, as HTML."""
        return self._run.stage(
            "report", AS_TEXT, lambda: page([evaluation.value]), lambda made: f"{len(made):,} characters", {"evaluate": evaluation.digest}
        )

    def export(self, rows: StageOutput[CutSet], fitted: StageOutput[Fitted]) -> StageOutput[Exported]:
        """The version: ONNX that computes what the pipeline computes, and its manifest."""

        def exported() -> Exported:
            return export(self._model, rows.value.examples, fitted.value, self._run.record.created, self._note)

        read = {"split": rows.digest, "fit": fitted.digest}
        return self._run.stage("export", as_msgpack(Exported), exported, _compared, read, created=self._run.record.created)

    def _build(self) -> DatedSet:
        archive = archive_state(self._store, needed_events(self._model, own_labels=self._labels is not None))
        examples = build(self._project, self._spec, self._model, self._store, self._run.record.until_ms, self._note, self._labels)
        return DatedSet(examples, DataRecord(set_digest(examples), len(examples), len(examples.inputs), archive))


def in_force(model: Model) -> bytes:
    """What a model and its views are. A run goes on while it is the same: the version that it may have stored is of these."""
    return msgspec.json.encode(_declared(model), order="sorted")


def _declared(model: Model) -> tuple[Any, dict[str, str]]:
    return msgspec.to_builtins(write_model(model)), {view.name: ViewKernel(view).definition for view in model.views}


def _told(data: DataRecord) -> str:
    return f"{data.rows:,} rows of {data.inputs} inputs, data set {data.digest[:12]}"


def _found(findings: Findings) -> str:
    warnings = sum(one.level == "warning" for one in findings.found)
    return f"{findings.inputs} inputs looked at; errors: {len(findings.found) - warnings}, warnings: {warnings}"


def _plain(declared: Any) -> str:
    """A declaration without the place where it is declared; of a function the name, its code is that of the project."""
    values = {one.name: getattr(declared, one.name) for one in fields(declared)}
    return f"{type(declared).__name__} { ({name: getattr(value, '__qualname__', value) for name, value in values.items()}) }"


def _best(found: Best) -> str:
    told = ", ".join(f"{name} {value}" for name, value in found.parameters.items()) or "nothing better than what is declared"
    return f"{told}: loss {found.loss:.4g}, {found.declared:.4g} as declared; {found.trials} trials, {found.pruned} pruned, {found.failed} failed"


def _scored(fitted: Fitted) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in fitted.metrics.items())


def _judged(evaluation: Evaluation) -> str:
    beside = evaluation.champion
    found = f"its loss is {abs(evaluation.skill):.0%} {'below' if evaluation.skill >= 0 else 'ABOVE'} that of a constant answer"
    if beside is None:
        return found
    told = beside.said or ", ".join(f"{one.name} {one.difference:+.3g} ({one.low:+.3g} to {one.high:+.3g})" for one in beside.losses)
    return f"{found}; beside the champion {beside.version}: {told}"


def _compared(exported: Exported) -> str:
    parity = exported.artifact.manifest.parity
    what = "what its worker answers" if exported.artifact.manifest.own_pipeline else "ONNX"
    return f"{what} differs by at most {parity.max_abs_diff:.2g} on {parity.rows:,} rows held out, {parity.compared:,} compared"


def digest_of_file(path: Path | None) -> str | None:
    """The SHA-256 of a file; None for none, or for one that cannot be read, which is refused where it is read."""
    return digest_of(path.read_bytes()) if path is not None and path.is_file() else None
