"""How a pipeline gets what a model takes whole: a free text as a text, a tensor as a float32 for each element.

It is also where texts stand that no training set has and that requests will bring.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.models.contents import measure, tensor_content, tensor_numbers
from tidemill.training.dataset import Floats, TrainingSet

STRANGE = (
    "", " ", "\n\t\r", "a", "I am a b c", "Été à l'ÉCOLE: déjà-vu, ﬁne; Straße ΣΟΦΟΣ İstanbul", "E\u0301te\u0301", "안녕하세요 세계 한국어",
    "日本語のテキスト、テスト。", "नमस्ते दुनिया", "שלום العربية", "🙂👍🏽 go 👩‍👩‍👧 ok", "nul\0within", "1,234.5 ½ x² №7 ①", "under_score x-y a.b@c.de",
    "\u2028\u00a0\u3000wide", "word " * 2_000, "x" * 10_000, "line one\nline two\r\nline three\ttab",
)  # fmt: skip
"""Texts on which ways of finding words differ."""
_SPREAD = 20


def texts_of(spec: ModelInput, places: Floats) -> Any:
    """The texts of rows, "" where there is none."""
    texts = np.array([*spec.categories, ""], dtype=object)
    return texts[_known(spec, places)]


def elements(spec: ModelInput, places: Floats) -> Floats:
    """The elements of the tensors of rows, shape (rows, elements); 0 where there is no tensor."""
    blank = np.zeros(math.prod(spec.lengths), np.float32)
    pool = np.stack([*(tensor_numbers(content) for content in spec.categories), blank])
    return np.asarray(pool[_known(spec, places)])


def element_names(spec: ModelInput) -> list[str]:
    """The columns of a tensor in a data frame."""
    return [f"{spec.name}_{i}" for i in range(math.prod(spec.lengths))]


def plain(inputs: Sequence[ModelInput], matrix: Floats) -> Any:
    """What a pipeline gets that names no columns: the texts of a single free text; else all numbers in order, a tensor's elements in its place.

    Raises TidemillError for a text beside others.
    """
    if [spec.kind for spec in inputs] == ["words"]:
        return texts_of(inputs[0], matrix[:, 0])
    for spec in inputs:
        if spec.kind == "words":
            raise TidemillError(
                f"the pipeline names no columns, and takes the text {spec.name!r} beside {len(inputs) - 1} other inputs",
                mend=f'choose columns by name: ColumnTransformer([("words", TfidfVectorizer(), "{spec.name}"), ...])',
            )
    parts = [elements(spec, matrix[:, i]) if spec.kind == "tensor" else matrix[:, i : i + 1] for i, spec in enumerate(inputs)]
    return np.hstack(parts)


def as_served(inputs: Sequence[ModelInput], row: Floats) -> tuple[Floats, list[str | None]]:
    """A row of a training set as a prediction is logged: the numbers that stand for its contents, and these."""
    contents = [None if np.isnan(row[i]) else spec.categories[int(row[i])] for i, spec in enumerate(inputs) if spec.is_content]
    vector, left = row.copy(), iter(contents)
    for i, spec in enumerate(inputs):
        if spec.is_content:
            vector[i] = measure(spec.kind, next(left))
    return vector, contents


def with_strange(examples: TrainingSet) -> TrainingSet:
    """The set whose pools also have contents that no row has, the last ones: parity compares them."""
    if not any(spec.is_content for spec in examples.inputs):
        return examples
    inputs = [
        msgspec.structs.replace(spec, categories=[*spec.categories, *strange_contents(spec)]) if spec.is_content else spec
        for spec in examples.inputs
    ]
    return dataclasses.replace(examples, inputs=inputs)


def strange_contents(spec: ModelInput) -> list[str]:
    """Contents that requests will bring, always as many for a kind: of texts also some known ones in capitals, turned around and joined."""
    known = spec.categories or [""] * (spec.kind == "words")
    some = [known[i * len(known) // _SPREAD] for i in range(_SPREAD)] if known else []
    if spec.kind == "words":
        turned = [" ".join(reversed(text.split())) for text in some]
        return [*STRANGE, *(text.upper() for text in some), *(f"{one}\n{other}" for one, other in zip(some, turned, strict=True))]
    count = math.prod(spec.lengths)
    size = max((float(np.abs(tensor_numbers(one)).max()) for one in some), default=1.0)
    draw = np.random.default_rng(0)
    rows = [
        np.zeros(count),
        np.full(count, size),
        np.full(count, -size),
        draw.uniform(-size, size, count),
        draw.uniform(0, 10 * size, count),
    ]
    return [tensor_content(row) for row in rows]


def strange_places(spec: ModelInput) -> list[int]:
    """The places of the contents that `with_strange` added last."""
    added = len(STRANGE) + 2 * _SPREAD if spec.kind == "words" else 5
    return list(range(len(spec.categories) - added, len(spec.categories)))


def _known(spec: ModelInput, places: Floats) -> Any:
    return np.where(np.isnan(places), len(spec.categories), places).astype(np.int64)
