"""Contracts of model files for the tests' model, and its rows as such files get them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.training.test_zoo import Row
from tests.training.zoo import MODEL

NAMES = MODEL.input_names
CODES = {"cash": 5.0, "card": 2.0, "coin": 3.0}
MISSING = dict.fromkeys(NAMES, 0.5)


def contract(gives: str = "logit", **more: Any) -> dict[str, Any]:
    """A contract of all inputs in their order, the texts by codes."""
    plain: dict[str, Any] = {
        "inputs": NAMES, "missing": MISSING, "categories": {"payment": CODES}, "output": {"name": "output", "gives": gives},
    }  # fmt: skip
    return plain | more


def written(folder: Path, model: Any, agreed: Mapping[str, Any]) -> tuple[Path, Path]:
    """The two files in a folder."""
    files = folder / "model.onnx", folder / "contract.json"
    onnx.save(model, files[0])
    files[1].write_text(json.dumps(agreed))
    return files


def numbers(rows: Sequence[Row], order: Sequence[str] = NAMES, missing: float = 0.5, unknown: float | None = None) -> np.ndarray:
    """Raw rows as a file of numbers gets them: texts by their codes."""
    other = missing if unknown is None else unknown
    return np.array(
        [
            [
                missing if row[name] is None else CODES.get(row[name], other) if name == "payment" else float(np.float32(row[name]))
                for name in order
            ]
            for row in rows
        ]
    )
