"""Running a model: an ONNX session that takes one row per call, on one thread, so that a row's output never depends on its neighbours."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort

from tidemill.errors import ArtifactError
from tidemill.models.artifact import Artifact, Manifest
from tidemill.models.inputs import Vector, vector_of

_WARM_UP_RUNS = 20


class Engine:
    """A model version that is ready to run: checked and warm. Raises ArtifactError when the model cannot be served.

    The ONNX model has one float32 input of shape (rows, inputs). A classifier has an output of shape (rows, 2), the probabilities
    (skl2onnx without zipmap); a regressor one of shape (rows, 1).
    """

    def __init__(self, artifact: Artifact) -> None:
        self.manifest = artifact.manifest
        self.label = f"{self.manifest.model} {self.manifest.version}"
        self._session = _session(self.label, artifact.onnx)
        self.input_name, self._output = self._signature(self.manifest)
        self._outputs = [self._output]
        self._column = 1 if self.manifest.output == "probability" else 0
        self._warm_up()
        self._check_golden()

    def predict(self, vector: Vector) -> float:
        """The output for one float32 vector: probability of the true class or value; NaN if the model gives none."""
        (output,) = self._session.run(self._outputs, {self.input_name: vector.reshape(1, -1)})
        return float(output[0, self._column])

    def _signature(self, manifest: Manifest) -> tuple[str, str]:
        inputs, width = self._session.get_inputs(), len(manifest.inputs)
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or inputs[0].shape[1:] != [width]:
            found = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
            raise ArtifactError(
                f"{self.label} takes {found}, not one float32 matrix of {width} columns", mend="convert it with one FloatTensorType input"
            )
        columns = 2 if manifest.output == "probability" else 1
        for output in self._session.get_outputs():
            if output.type == "tensor(float)" and output.shape[1:] == [columns]:
                return inputs[0].name, output.name
        raise ArtifactError(
            f"{self.label} has no float32 output of {columns} columns for its {manifest.output}",
            mend="convert a classifier of two classes with zipmap off, or a regressor of one target",
        )

    def _warm_up(self) -> None:
        """A row that knows nothing is an ordinary request (new entities), so a model that cannot answer it is refused."""
        unknown = np.full(len(self.manifest.inputs), np.nan, np.float32)
        for _ in range(_WARM_UP_RUNS):
            if not math.isfinite(self.predict(unknown)):
                raise ArtifactError(
                    f"{self.label} gives no number when all inputs are missing", mend="put an imputer first in the pipeline"
                )

    def _check_golden(self) -> None:
        for row in self.manifest.golden:
            output = self.predict(vector_of(row.inputs))
            if not abs(output - row.output) <= self.manifest.parity.tolerance:
                raise ArtifactError(
                    f"{self.label} gives {output} where it gave {row.output} in training", mend="train it again on this kind of machine"
                )


def _session(label: str, onnx: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common root
        raise ArtifactError(f"{label} is not a model that onnxruntime can load: {error}", mend="train it again") from error
