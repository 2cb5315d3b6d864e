"""What MLflow is told of a version beside its model: metrics by step, the data set's identity, the report and the plots."""

from __future__ import annotations

from typing import Any

import msgspec
from pyarrow import fs

from tidemill.models.artifact import Manifest, folder_of
from tidemill.training.report.page import drawings
from tidemill.training.stages.data import DATA, DataRecord
from tidemill.training.stages.evaluation import EVALUATION, REPORT, Evaluation

_DIGEST = 36  # the most that MLflow takes


class BesideVersion(msgspec.Struct, frozen=True):
    """What is stored beside a version; None of one that an earlier tidemill trained."""

    evaluation: Evaluation | None = None
    data: DataRecord | None = None
    report: bytes | None = None

    def metrics(self, manifest: Manifest) -> list[tuple[str, float, int]]:
        """Name, value and step of each metric. The step of the learning curve is the number of rows that were fitted on."""
        parity = {"parity_max_abs_diff": manifest.parity.max_abs_diff, "parity_rows_on_threshold": float(manifest.parity.on_threshold)}
        found = [(name, value, 0) for name, value in (manifest.metrics | parity).items()]
        one = self.evaluation
        if one is None:
            return found
        found += [(f"baseline_{name}", value, 0) for name, value in one.baseline.items()]
        found += [(f"learning_{one.loss}", point.loss, point.rows) for point in one.learning]
        if one.champion:
            found += [(f"champion_{loss.name}_difference", loss.difference, 0) for loss in one.champion.losses]
        return [metric for metric in [*found, ("ece", one.ece, 0), ("skill", one.skill, 0)] if metric[1] == metric[1]]

    def files(self) -> dict[str, dict[str, bytes]]:
        """The files of the run by folder and name: the report, which MLflow shows, and the plots."""
        found = dict[str, dict[str, bytes]]()
        if self.report is not None:
            found["report"] = {REPORT: self.report}
        if self.evaluation is not None:
            found.setdefault("report", {})[EVALUATION] = msgspec.json.encode(self.evaluation)
            found["plots"] = {name: chart.encode() for name, chart in drawings(self.evaluation).items()}
        return found

    def dataset(self, manifest: Manifest) -> Any:
        """The data set as MLflow's input of a run; None where it is not known."""
        if self.data is None:
            return None
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415 - as MLflow's client

        columns = [{"type": "string" if item.has_texts else "double", "name": item.name} for item in manifest.inputs]
        made = Dataset(
            name=f"{manifest.model} training set",
            digest=self.data.digest[:_DIGEST],
            source_type="tidemill",
            source=msgspec.json.encode({"archive": self.data.archive, "version": manifest.version}).decode(),
            schema=msgspec.json.encode({"mlflow_colspec": columns}).decode(),
            profile=msgspec.json.encode(
                {"num_rows": self.data.rows, "from": manifest.trained_from, "until": manifest.trained_until}
            ).decode(),
        )
        return DatasetInput(made, [InputTag("mlflow.data.context", "training")])


def beside_version(offline_root: str, manifest: Manifest) -> BesideVersion:
    """What is stored beside a version, as far as this tidemill can read it. Raises OSError when the offline store cannot be read."""
    store, root = fs.FileSystem.from_uri(offline_root) if "://" in offline_root else (fs.LocalFileSystem(), offline_root)

    def read(name: str) -> bytes | None:
        path = f"{root}/{folder_of(manifest.model, manifest.version)}/{name}"
        if store.get_file_info(path).type != fs.FileType.File:
            return None
        with store.open_input_stream(path) as stream:
            return bytes(stream.read())

    def decoded(name: str, kind: type[Any]) -> Any:
        content = read(name)
        try:
            return None if content is None else msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError:
            return None

    return BesideVersion(decoded(EVALUATION, Evaluation), decoded(DATA, DataRecord), read(REPORT))
