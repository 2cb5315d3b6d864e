"""A file, a contract or examples that cannot be taken: one line, with the name of what is wrong and what to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.training.elsewhere import NAMES, contract, numbers, written
from tests.training.files import FLOAT, INT64, TEXT, Perceptron, made
from tests.training.test_imported import ABOVE, CLASSES, imported, last, with_classes
from tests.training.test_zoo import ROWS, TRUTH, training_set
from tests.training.zoo import MODEL

from tidemill import Model
from tidemill.errors import TidemillError
from tidemill.training.imported.contract import decode_contract, read_contract
from tidemill.training.imported.version import make_imported, prepare


def refused(run: Callable[[], Any], told: str) -> None:
    """Asserts that a run is refused by one line."""
    with pytest.raises(TidemillError, match=told) as error:
        run()
    assert "\n" not in str(error.value)
    assert error.value.mend


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"inputs": ["distance", "distance"]}, "is no contract: inputs: name at least one, and each once"),
        ({"inputs": []}, "inputs: name at least one"),
        (
            {"output": {"name": "output", "gives": "logits", "classes": ["a", "b"]}},
            'unknown field `classes`.*; write "classes" beside "output", not',
        ),
        ({"name": "output"}, 'unknown field `name`; write "name" in "output"'),
        ({"shape": [1]}, "unknown field `shape`; see schemas/contract.v1.schema.json"),
        ({"missing": {"tip": 1}}, "'tip' is none of the inputs"),
        ({"unknown": {"distance": 1}}, "unknown: 'distance' has no categories"),
        ({"categories": {"payment": []}}, "'payment' needs texts, each once"),
        ({"classes": ["a", "b"]}, "classes: name 2 to 100, each once, of an output that gives probabilities or logits"),
        ({"output": {"name": "output", "gives": "odds"}}, r"Invalid enum value 'odds'.*see schemas/contract"),
        ({"scale": 1}, "unknown field `scale`"),
    ],
)
def test_what_is_no_contract(more: dict[str, Any], told: str, tmp_path: Path) -> None:
    """A contract that contradicts itself."""
    refused(lambda: read_contract(written(tmp_path, Perceptron(12).onnx(), contract(**more))[1]), told)


def test_a_contract_that_is_not_there(tmp_path: Path) -> None:
    """Its name is told."""
    refused(lambda: read_contract(tmp_path / "none.json"), "none.json cannot be read: No such file")


NETWORK = Perceptron(12)
RENAMED: dict[str, Any] = {"inputs": [*NAMES[:-1], "tip"], "missing": {}}


def shaped(kind: int, shape: Any, name: str = "input") -> Any:
    """A file that takes such an input, and gives a zero."""
    model = made([helper.make_node("Constant", [], ["output"], value_floats=[0.0])], [(name, kind, shape)], [("output", FLOAT, [1])])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize(
    ("model", "agreed", "declared", "told"),
    [
        (NETWORK.onnx(), contract(**RENAMED), MODEL, "has no input 'tip', which the contract names; its inputs are zones__count_1h, "),
        (NETWORK.onnx(), contract(categories={}), MODEL, "input 'payment' is a text, and the contract has no categories of it; give"),
        (NETWORK.onnx(), contract(categories={"payment": ["a"], "distance": ["b"]}), MODEL, "input 'distance' is a number, and the contract has"),
        (NETWORK.onnx(), contract(), with_classes(), "outcome 'how' is one of several classes, and the contract says 'logit' without classes"),
        (
            NETWORK.onnx(), contract("logits", classes=["a", "b"]), with_classes(["a", "c"]),
            r"classes of the contract \(a, b\) are not those of the outcome \(a, c\)",
        ),
        (NETWORK.onnx(), contract(missing={"distance": "none"}), MODEL, "gives 'none' for 'distance', of which the file takes numbers"),
        (NETWORK.onnx(), contract(inputs=NAMES[:-1], missing={}), MODEL, r"input float \[any, 12\] has 12 numbers a row, and the contract 11 columns"),
        (NETWORK.onnx(rows=32), contract(), MODEL, r"input float \[32, 12\] takes no single row; export it with rows as its first axis"),
        (shaped(FLOAT, [12]), contract(), MODEL, r"input float \[12\] takes no single row"),
        (shaped(FLOAT, []), contract(), MODEL, r"input float \[\] takes no single row"),
        (shaped(INT64, ["n", 12]), contract(missing={}), MODEL, "int64 .* cannot hold a missing 'zones__count_1h'; say what stands for it"),
        (shaped(TEXT, ["n", 12]), contract(), MODEL, "takes texts, and 'zones__count_1h' is a number"),
        (
            shaped(TEXT, ["n", 1]), contract(inputs=["payment"], missing={"payment": 0}), MODEL,
            "takes texts, and needs one for a missing 'payment'; say which",
        ),
        (shaped(TensorProto.BFLOAT16, ["n", 12]), contract(), MODEL, "bfloat16 .* takes no numbers that a model can be given"),
        (NETWORK.onnx(), contract(inputs={"x": NAMES}), MODEL, "has the inputs input, and the contract x; name the inputs of the file"),
        (NETWORK.onnx(), contract(output={"name": "y", "gives": "logit"}), MODEL, "has no output 'y'; name one of output in the contract"),
        (Perceptron(12, 3).onnx(), contract(), MODEL, r"output output float32 \[1, 3\] has 3 numbers a row, and 'logit' needs 1; correct"),
        (Perceptron(12, 3).onnx(), contract("probability"), MODEL, "has 3 numbers a row, and 'probability' needs 1 or 2"),
        (NETWORK.onnx(), contract("logits", classes=CLASSES), with_classes(), "has 1 numbers a row, and 'logits' needs 3"),
        (
            last(helper.make_node("Greater", ["output", "output"], ["last"]), shape=[None, 1], kind=TensorProto.BOOL),
            contract(output={"name": "last", "gives": "value"}), MODEL, "output 'last' is bool, no array of numbers; name another output",
        ),
        (
            made(
                [helper.make_node("MatMul", ["input", "w"], ["output"])], [("input", FLOAT, None)], [("output", FLOAT, None)],
                {"w": np.ones((5, 1), np.float32)},
            ),
            contract(), MODEL, "the file (fails on a row of zeros|does not take what the contract gives it): .*; correct inputs",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit(model: Any, agreed: dict[str, Any], declared: Model, told: str, tmp_path: Path) -> None:
    """File, contract and model contradict each other: known before a training set is made."""
    refused(lambda: prepare(declared, *written(tmp_path, model, agreed)), told)


def of_the_future() -> Any:
    """A file of an opset that does not exist yet."""
    model = NETWORK.onnx()
    model.opset_import[0].version = 999
    return model


def of_another_library() -> Any:
    """A file with an operator that onnxruntime does not know."""
    model = NETWORK.onnx()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Flow", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (of_the_future(), r"onnxruntime cannot load it: .*; export it with opset \d+ or less; it has 999"),
        (of_another_library(), "onnxruntime cannot load it: .*; export it without operators of com.example"),
        (made(NETWORK.onnx().graph.node, [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])]), "onnxruntime cannot load it"),
    ],
)
def test_what_onnxruntime_cannot_load(model: Any, told: str, tmp_path: Path) -> None:
    """An opset or an operator that it lacks, or a graph that is not whole."""
    refused(lambda: prepare(MODEL, *written(tmp_path, model, contract())), told)


def test_an_opset_that_is_too_old(tmp_path: Path) -> None:
    """Before opset 9 nothing could ask for a missing number."""
    model = made(
        [helper.make_node("ReduceMean", ["input"], ["output"], axes=[1])],
        [("input", FLOAT, ["n", 12])],
        [("output", FLOAT, ["n", 1])],
        opset=8,
    )
    refused(lambda: prepare(MODEL, *written(tmp_path, model, contract())), "has opset 8; 9 is the oldest that is taken; convert it")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no ONNX file: it has no nodes"),
        (b"PK\x03\x04 a saved PyTorch model", "is no ONNX file, or is cut short"),
        (NETWORK.onnx().SerializeToString()[:-40], "is no ONNX file, or is cut short|cannot load it"),
        (None, "cannot be read: .*; name an ONNX file"),
    ],
)
def test_what_is_no_file(content: bytes | None, told: str, tmp_path: Path) -> None:
    """Something else, a part of a file, or nothing."""
    file, agreed = written(tmp_path, NETWORK.onnx(), contract())
    file.unlink() if content is None else file.write_bytes(content)
    refused(lambda: prepare(MODEL, file, agreed), told)


def test_data_beside_a_file(tmp_path: Path) -> None:
    """Weights in a file of their own are read; one that lacks them is refused by that file's name."""
    file, agreed = written(tmp_path, NETWORK.onnx(), contract())
    onnx.save(NETWORK.onnx(), file, save_as_external_data=True, location="weights.data", size_threshold=0)
    found = prepare(MODEL, file, agreed)
    make_imported(found, training_set(ROWS, ABOVE), 0, lambda _: None)
    onnx.load_from_string(found.written["imported.onnx"])
    (tmp_path / "weights.data").unlink()
    refused(lambda: prepare(MODEL, file, agreed), "weights.data.*keep the data that it names beside it")


def passing(nodes: list[Any]) -> Any:
    """A file of these nodes, from `input` to `output`."""
    return made(nodes, [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])])


@pytest.mark.parametrize(
    ("model", "agreed", "labels", "told"),
    [
        (
            NETWORK.onnx(), contract(missing={"payment": 1}), ABOVE,
            r'gives nan on rows .*, which requests will bring; say what stands for a missing value: "missing": \{"\w+": 0\} in the contract',
        ),
        (
            passing([onnx.helper.make_node("Sub", ["input", "input"], ["nought"]), onnx.helper.make_node("Div", ["nought", "nought"], ["all"]),
                     onnx.helper.make_node("ReduceSum", ["all"], ["output"], keepdims=1)]),
            contract("value", missing=dict.fromkeys(NAMES, 1)), np.arange(300.0),
            r"gives nan on rows held out, which requests will bring; run the file by itself on such a row",
        ),
        (NETWORK.onnx(), contract("probability"), ABOVE, r"output 'output' is .*, which is no probability; say \"logit\""),
        (
            last(helper.make_node("Concat", ["output", "output"], ["both"], axis=1), helper.make_node("Sigmoid", ["both"], ["last"]), shape=[None, 2]),
            contract(output={"name": "last", "gives": "probabilities"}), ABOVE, None,
        ),
        (NETWORK.onnx(), contract(), TRUTH, r"its outcome 'tip > 2' is .* at times, and the contract says 'logit', which is of 0 and 1; say \"value\""),
        (NETWORK.onnx(), contract(), np.resize([1.0], 300), "the newest 60 examples, on which it is measured, do not show two outcomes twice"),
        (NETWORK.onnx(), contract(), np.array([1.0] * 299 + [0.0]), "do not show two outcomes twice; collect more outcomes"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_served(model: Any, agreed: dict[str, Any], labels: np.ndarray, told: str | None, tmp_path: Path) -> None:
    """NaN, numbers that are no probabilities, and labels of another kind; two numbers of which only the second is served may be any."""
    if told is None:
        assert imported(tmp_path, model, agreed, labels).artifact.manifest.output == "probability"
    else:
        refused(lambda: imported(tmp_path, model, agreed, labels), told)


@pytest.mark.parametrize(("kind", "inputs"), [("Dropout", ["output", "share", "training"]), ("RandomNormalLike", ["output"])])
def test_a_network_that_was_exported_while_it_trained(kind: str, inputs: list[str], tmp_path: Path) -> None:
    """One that drops numbers by chance, or adds noise, answers differently each time, and could never be replayed. onnxruntime
    leaves a dropout out where it can, so the graph differs from the file."""
    model = last(helper.make_node(kind, inputs, ["last"]), shape=[None, 1])
    model.graph.initializer.append(helper.make_tensor("share", FLOAT, [], [0.5]))
    model.graph.initializer.append(helper.make_tensor("training", TensorProto.BOOL, [], [True]))
    agreed = contract(output={"name": "last", "gives": "value"})
    refused(
        lambda: imported(tmp_path, model, agreed, TRUTH), r"(another answer to the same row|differs from the file itself).*model.eval\(\)"
    )


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    """A list of tensors cannot have columns."""
    model = made([helper.make_node("ConcatFromSequence", ["input"], ["output"], axis=1)], [], [("output", FLOAT, None)])
    model.graph.input.append(helper.make_tensor_sequence_value_info("input", FLOAT, None))
    refused(lambda: prepare(MODEL, *written(tmp_path, model, contract())), "input input is no tensor; export it with tensors as inputs")


def test_probabilities_that_do_not_add_up(tmp_path: Path) -> None:
    """Those of several classes must."""
    model = last(helper.make_node("Sigmoid", ["output"], ["last"]), shape=[None, 3], outputs=3)
    agreed = contract(output={"name": "last", "gives": "probabilities"}, classes=CLASSES)
    examples = dataclasses.replace(training_set(ROWS, np.resize([0.0, 1.0, 2.0], 300)), texts=tuple(CLASSES))
    prepared = prepare(with_classes(), *written(tmp_path, model, agreed))
    refused(lambda: make_imported(prepared, examples, 0, lambda _: None), r"probabilities of output 'last' add up to .*say \"logits\"")


def test_a_text_as_the_outcome_of_one_number(tmp_path: Path) -> None:
    """A file of one number, where the examples have texts, is told to have classes; so are too few examples."""
    prepared = prepare(MODEL, *written(tmp_path, NETWORK.onnx(), contract("value")))
    examples = training_set(ROWS, np.resize([0.0, 1.0], 300))
    texts = dataclasses.replace(examples, texts=("a", "b"))
    refused(lambda: make_imported(prepared, texts, 0, lambda _: None), "is a text, and the file gives one value; give the contract")
    few = dataclasses.replace(examples, values=examples.values[:5], labels=examples.labels[:5], subjects=examples.subjects[:5])
    refused(lambda: make_imported(prepared, few, 0, lambda _: None), "5 examples are too few to measure a model on")


def test_a_file_that_fails_on_some_rows(tmp_path: Path) -> None:
    """It is told with the rows, and with what would mend it."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("IsNaN", ["mean"], ["empty"]),
        helper.make_node("Cast", ["empty"], ["place"], to=INT64),
        helper.make_node("Constant", [], ["table"], value_floats=[0.5]),
        helper.make_node("Gather", ["table", "place"], ["output"]),
    ]
    refused(
        lambda: imported(tmp_path, passing(nodes), contract("value", missing={}), TRUTH),
        "the file fails on rows held out.*say what stands for",
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"expected": 0.5}], "has no column 'zones__count_1h'; it needs the inputs by name"),
        ([], "has no column|has no rows"),
        ([dict(ROWS[0]) | {"expected": None}], "'expected' cannot be used: shape .*; write one number for each row"),
        ([dict(ROWS[0]) | {"expected": [0.1, 0.9]}], "'expected' cannot be used"),
        ([dict(ROWS[0]) | {"expected": 0.5, "payment": 3}], "column 'payment': 3 is no text; write numbers, or texts for a category"),
        ([dict(ROWS[0]) | {"expected": 0.5, "distance": "far"}], "column 'distance': could not convert string to float"),
        ("{", "examples .* cannot be read"),
    ],
)
def test_examples_that_cannot_be_used(rows: Any, told: str, tmp_path: Path) -> None:
    """Columns, types and numbers that are not there."""
    (tmp_path / "rows.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    refused(lambda: prepare(MODEL, *written(tmp_path, NETWORK.onnx(), contract(examples="rows.json"))), told)


@pytest.mark.parametrize("wrong", ["order", "logit", "missing"])
def test_examples_show_a_wrong_contract(wrong: str, tmp_path: Path) -> None:
    """Columns in another order, logits that are called probabilities, and another number for missing values are found by the examples."""
    logits = NETWORK.answers(numbers(ROWS[:50], NAMES, 0.75 if wrong == "missing" else 0.5))[:, 0]
    expected = logits if wrong == "logit" else 1 / (1 + np.exp(-logits))
    (tmp_path / "rows.json").write_text(json.dumps([dict(row) | {"expected": float(p)} for row, p in zip(ROWS, expected, strict=False)]))
    agreed = contract(examples="rows.json", inputs=NAMES[::-1] if wrong == "order" else NAMES)
    refused(
        lambda: imported(tmp_path, NETWORK.onnx(), agreed),
        r"differs from the examples on \d+ of 50 rows, first on row \d+: .*see that inputs",
    )


def test_an_output_of_texts(tmp_path: Path) -> None:
    """An output of texts, as labels are, is no number."""
    model = NETWORK.onnx()
    model.graph.node.append(helper.make_node("Constant", [], ["label"], value_strings=[b"late"]))
    model.graph.output.append(helper.make_tensor_value_info("label", TEXT, [1]))
    agreed = contract(output={"name": "label", "gives": "value"})
    refused(lambda: prepare(MODEL, *written(tmp_path, model, agreed)), "output 'label' is object, no array of numbers")


def test_a_class_that_is_a_number_has_its_digits_as_name() -> None:
    """In a contract as in an outcome; what is neither a text nor a whole number is told with its place."""
    agreed = contract("logits", classes=[2, 0, "none"])
    assert decode_contract(json.dumps(agreed).encode()).classes == ["2", "0", "none"]
    for wrong in (1.5, True, None):
        with pytest.raises(msgspec.ValidationError, match=r"\$\.classes\[0\]"):
            decode_contract(json.dumps(agreed | {"classes": [wrong, 1]}).encode())
