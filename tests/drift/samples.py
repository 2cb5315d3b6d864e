"""A manifest made from columns, and rows of a stationary world or a moved one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tidemill.models.artifact import Manifest, ModelInput, Parity
from tidemill.stats.histograms import reference
from tidemill_drift.compare import Finding
from tidemill_drift.monitor import PredictionRow

Floats = npt.NDArray[np.float64]


def manifest(columns: dict[str, Floats], prediction: Floats, output: str = "probability", **metrics: float) -> Manifest:
    """A manifest with histograms of the columns; those named `category...` are categories."""
    kinds = {name: "category" if name.startswith("category") else "number" for name in columns}
    inputs = [
        ModelInput(name, kind, [f"c{i}" for i in range(100)] if kind == "category" else [])  # type: ignore[arg-type]
        for name, kind in kinds.items()
    ]
    histograms = {name: reference(column, category=kinds[name] == "category") for name, column in columns.items()}
    return Manifest(
        model="late", version="v1", created=0, inputs=inputs, output=output, definitions={}, trained_from=0, trained_until=1,  # type: ignore[arg-type]
        rows=len(prediction), metrics=metrics, parity=Parity(0, 0, 0), reference=histograms | {"prediction": reference(prediction)},
        onnx_sha256="0" * 64,
    )  # fmt: skip


def rows(columns: dict[str, Floats], prediction: Floats) -> list[PredictionRow]:
    """Rows of a window, as the detector keeps them."""
    matrix = np.column_stack(list(columns.values())).astype(np.float32)
    return [PredictionRow(inputs, float(output)) for inputs, output in zip(matrix, prediction, strict=True)]


def zipf(random: np.random.Generator, size: int, values: int = 50) -> Floats:
    """Categories of which the k-th is 1/k as frequent as the first."""
    weights = 1 / np.arange(1, values + 1)
    return random.choice(values, size, p=weights / weights.sum()).astype(np.float64)


def finding(effect: float, *, statistic: float = 100.0, subject: str = "x", kind: str = "feature_drift") -> Finding:
    """A finding with a floor of 0.2 and a threshold of 10."""
    return Finding(kind, subject, "chi-square and PSI", "share of values below 1", statistic, 10.0, effect, 0.2, 0.1, 0.5)  # type: ignore[arg-type]
