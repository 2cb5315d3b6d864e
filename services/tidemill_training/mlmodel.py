"""A version as a model of MLflow's: the files that `mlflow.onnx.load_model` and `mlflow.pyfunc.load_model` read, beside the ONNX file.

They are written here and not by MLflow's own `save_model`, which imports pandas and a web framework and takes seconds. A classifier's ONNX
file has labels and probabilities, of which MLflow can make no data frame; there it has one output, the probability that is served, or one
for each of several classes.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from tidemill.declarations.models import FEATURES
from tidemill.models.artifact import Manifest, Output

ONNX, EXAMPLE, MANIFEST = "model.onnx", "input_example.json", "manifest.json"
_TRUE_CLASS = 1
_CLASS = "probability of {}"
_NEEDED = ("mlflow-skinny", "onnx", "onnxruntime", "pandas")


def files_of(manifest: Manifest, onnx: bytes, run_id: str) -> dict[str, bytes]:
    """The files of a version's folder in MLflow, by name. Of a version that its own pipeline serves there is no model that MLflow loads."""
    if manifest.own_pipeline:
        return {manifest.file_name: onnx, MANIFEST: msgspec.json.encode(manifest)}
    requirements = [f"{name}=={version(name)}" for name in _NEEDED]
    golden = [] if _takes_contents(manifest) else manifest.golden[:1]
    example = {"columns": [item.name for item in manifest.inputs], "data": [row.inputs for row in golden]}
    onnx = with_served_outputs(onnx, manifest.output, manifest.class_names)
    return {
        ONNX: onnx,
        MANIFEST: msgspec.json.encode(manifest),
        EXAMPLE: msgspec.json.encode(example),
        "requirements.txt": "\n".join([*requirements, ""]).encode(),
        "python_env.yaml": _yaml({"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}),
        "MLmodel": _yaml(_described(manifest, len(onnx), run_id)),
    }


def with_served_outputs(onnx: bytes, output: Output, classes: Sequence[str] = ()) -> bytes:
    """A classifier with its probability of the true class, shape (rows, 1), as its only output, or with one such output for each of several
    classes; a regressor as it is."""
    if output == "value":
        return onnx
    from onnx import TensorProto, helper, load_from_string  # noqa: PLC0415 - takes a third of a second

    model = load_from_string(onnx)
    graph, probabilities = model.graph, model.graph.output[-1].name
    del graph.output[:]
    wanted = [(_CLASS.format(name), place) for place, name in enumerate(classes)] or [("probability", _TRUE_CLASS)]
    for name, place in wanted:
        column = f"column {place}" if classes else "true_class"
        graph.initializer.append(helper.make_tensor(column, TensorProto.INT64, [1], [place]))
        graph.node.append(helper.make_node("Gather", [probabilities, column], [name], name=name, axis=1))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]))
    return bytes(model.SerializeToString())


def _takes_contents(manifest: Manifest) -> bool:
    return any(item.is_content for item in manifest.inputs)


def _inputs(manifest: Manifest) -> list[dict[str, Any]]:
    if not _takes_contents(manifest):
        return [{"type": "float", "name": item.name, "required": True} for item in manifest.inputs]
    numbers = sum(not item.is_content for item in manifest.inputs)
    shapes = {FEATURES: [-1, numbers]} if numbers else {}
    shapes |= {item.name: [-1, *item.lengths] if item.lengths else [-1, -1] for item in manifest.inputs if item.is_content}
    texts = {item.name for item in manifest.inputs if item.kind == "words"}
    return [
        {"type": "tensor", "name": name, "tensor-spec": {"dtype": "object" if name in texts else "float32", "shape": shape}}
        for name, shape in shapes.items()
    ]


def _described(manifest: Manifest, size: int, run_id: str) -> dict[str, Any]:
    """What MLflow knows of the model. Its inputs are columns of floats by name, so a data frame may have them in any order; of a model that takes
    texts or tensors they are the tensors of its graph, so they are given as arrays by name."""
    inputs = _inputs(manifest)
    onnx = {
        "data": ONNX,
        "onnx_version": version("onnx"),
        "providers": ["CPUExecutionProvider"],
        "code": None,
        "onnx_session_options": None,
    }
    function = {
        "loader_module": "mlflow.onnx",
        "data": ONNX,
        "env": {"virtualenv": "python_env.yaml"},
        "python_version": platform.python_version(),
    }
    names = [_CLASS.format(name) for name in manifest.class_names] or [manifest.output]
    outputs = [{"type": "float", "name": name, "required": True} for name in names]
    example = {"artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
    return {
        "artifact_path": "model",
        "flavors": {"onnx": onnx, "python_function": function},
        "metadata": {"tidemill.model": manifest.model, "tidemill.version": manifest.version, "tidemill.output": manifest.output},
        "mlflow_version": version("mlflow-skinny"),
        "model_size_bytes": size,
        "model_uuid": uuid.uuid5(uuid.NAMESPACE_URL, f"{manifest.model}@{manifest.version}").hex,
        "run_id": run_id,
        "saved_input_example_info": example if manifest.golden and not _takes_contents(manifest) else None,
        "signature": {"inputs": msgspec.json.encode(inputs).decode(), "outputs": msgspec.json.encode(outputs).decode(), "params": None},
        "utc_time_created": datetime.fromtimestamp(manifest.created / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _yaml(content: dict[str, Any]) -> bytes:
    import yaml  # noqa: PLC0415 - slow, and asked for only when a version is recorded

    return bytes(yaml.safe_dump({name: value for name, value in content.items() if value is not None}).encode())
