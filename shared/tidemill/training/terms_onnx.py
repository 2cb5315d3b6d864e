"""The vectorizers of scikit-learn in ONNX: a rule of terms that Python follows, and a graph that counts and weighs the terms.

So every option of a vectorizer that is data is served as it was trained, in any language; those that are code are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from tidemill.errors import TidemillError
from tidemill.models.terms import TermRule, marked
from tidemill.training.steps import Step

_CODE = {
    "preprocessor": "lowercase and strip_accents",
    "tokenizer": "token_pattern",
}


class FoundRules:
    """The rules that a conversion finds, by the graph's input whose text they are for."""

    def __init__(self) -> None:
        self.rules: dict[str, list[TermRule]] = {}

    @property
    def converters(self) -> dict[type, Callable[[Any, Any, Any], None]]:
        """What skl2onnx converts vectorizers by."""
        return {CountVectorizer: self._counted, TfidfVectorizer: self._weighed}

    def number(self, text: str, rule: TermRule) -> int:
        """The number of a rule among those of an input."""
        known = self.rules.setdefault(text, [])
        if rule not in known:
            known.append(rule)
        return known.index(rule)

    def _counted(self, scope: Any, operator: Any, container: Any) -> None:
        self._count(scope, operator, container, operator.outputs[0].full_name)

    def _weighed(self, scope: Any, operator: Any, container: Any) -> None:
        """Counts, dampened by their logarithm, times the weight of each term, divided by the row's length: as far as the vectorizer says so."""
        vectorizer, graph = operator.raw_operator, _Graph(scope, container)
        found = graph.name("counted")
        self._count(scope, operator, container, found)
        if vectorizer.sublinear_tf:
            there, most = graph.node("Sign", [found]), graph.node("Max", [found, graph.constant(np.ones(1))])
            found = graph.node("Mul", [there, graph.node("Add", [graph.node("Log", [most]), graph.constant(np.ones(1))])])
        if vectorizer.use_idf:
            found = graph.node("Mul", [found, graph.constant(vectorizer.idf_)])
        last = operator.outputs[0].full_name
        if vectorizer.norm is None:
            graph.node("Identity", [found], last)
        else:
            graph.node("Normalizer", [found], last, op_domain="ai.onnx.ml", op_version=1, norm=vectorizer.norm.upper())

    def _count(self, scope: Any, operator: Any, container: Any, output: str) -> None:
        vectorizer, text, graph = operator.raw_operator, operator.inputs[0].full_name, _Graph(scope, container)
        number, columns = self.number(text, rule_of(vectorizer)), vectorizer.vocabulary_
        terms = sorted(columns, key=columns.__getitem__)
        counted = graph.name("terms") if vectorizer.binary else output
        graph.node(
            "TfIdfVectorizer", [text], counted, op_version=9, mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0, ngram_counts=[0],
            ngram_indexes=list(range(len(terms))), pool_strings=[marked(number, term) for term in terms],
        )  # fmt: skip
        if vectorizer.binary:
            graph.node("Sign", [counted], output)


def rule_of(vectorizer: Any) -> TermRule:
    """The rule of a fitted vectorizer. Raises TidemillError for one that runs code of its own, or that reads files."""
    step = Step((), vectorizer)
    for option, instead in _CODE.items():
        if getattr(vectorizer, option) is not None:
            raise TidemillError(
                f"{step.title} has a {option} of its own, and only its options can be served",
                mend=f"use {instead} in the place of {option}",
            )
    if callable(vectorizer.analyzer) or callable(vectorizer.strip_accents):
        raise TidemillError(
            f"{step.title} finds terms by a function, and only its options can be served",
            mend="use analyzer='word' with a token_pattern, or 'char_wb'",
        )
    if vectorizer.input != "content":
        raise TidemillError(f"{step.title} reads files, and a request brings the text itself", mend="leave input= out")
    least, most = vectorizer.ngram_range
    words = vectorizer.analyzer == "word"
    return TermRule(
        bool(vectorizer.lowercase), vectorizer.strip_accents, vectorizer.analyzer, vectorizer.token_pattern if words else "",
        sorted(vectorizer.get_stop_words() or ()) if words else [], int(least), int(most),
    )  # fmt: skip


class _Graph:
    """Adds nodes to a graph that skl2onnx makes."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def name(self, what: str) -> str:
        """A name for a tensor that is not there yet."""
        return str(self._scope.get_unique_variable_name(what))

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """The name of the output of a new node."""
        output = output or self.name(kind.lower())
        self._container.add_node(kind, inputs, [output], name=self._scope.get_unique_operator_name(kind), **attributes)
        return output

    def constant(self, numbers: Any) -> str:
        """The name of a tensor that does not change."""
        name, flat = self.name("constant"), np.asarray(numbers, np.float32).reshape(-1)
        self._container.add_initializer(name, TensorProto.FLOAT, [len(flat)], flat)
        return name
