"""What an answer takes by ONNX and by the pipeline itself in a worker: `python -m benchmarks.engines`. One row after the other, one client."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.explaining import ASKED, INPUTS, QUICK_ASKED, TREES, examples, milliseconds
from benchmarks.figures import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tidemill.models.artifact import ModelInput, PythonEngine
from tidemill.models.engine import Engine
from tidemill.models.pipelines.packages import python_version
from tidemill.training.conversion import to_onnx


def processor_ms(pid: int | None) -> float:
    """What this process and a worker have taken of processors."""
    own = 1_000 * time.process_time()
    if pid is None:
        return own
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + 1_000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def engines_of(pipeline: Any) -> dict[str, Engine]:
    """The same fitted pipeline, served both ways."""
    inputs = [ModelInput(f"i{i}", "number") for i in range(INPUTS)]
    own = PythonEngine("", python_version(), {}, frame=False)
    return {
        "ONNX": Engine.of_onnx("benchmark", to_onnx(pipeline, INPUTS, probability=True), INPUTS, "probability"),
        "python engine": Engine.of_pipeline("benchmark", pickle.dumps(pipeline), own, inputs, "probability"),
    }


def figures(*, quick: bool) -> Iterator[Figure]:
    """Boosted trees, and a sum of terms."""
    rows, labels = examples()
    asked = rows[: QUICK_ASKED if quick else ASKED]
    for name, pipeline in {
        f"{TREES} boosted trees": HistGradientBoostingClassifier(max_iter=TREES, random_state=0),
        "imputer, scaler, logistic regression": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    }.items():
        for kind, engine in engines_of(pipeline.fit(rows, labels)).items():
            pid = engine.worker.pid if engine.worker else None
            before = processor_ms(pid)
            median, slow = milliseconds(engine.predict, asked)
            used = (processor_ms(pid) - before) / len(asked)
            yield Figure(f"answer of {name}, {INPUTS} inputs: {kind}", median, "ms", {"p99": slow, "processor ms": used})


if __name__ == "__main__":
    for figure in figures(quick=False):
        print(figure)
