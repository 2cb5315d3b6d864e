"""Terms of a text: the same, in the same order, as the vectorizers of scikit-learn find."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from tidemill.errors import TidemillError
from tidemill.models.terms import TermRule, read_rules, terms_maker, write_rules
from tidemill.training.given_contents import STRANGE
from tidemill.training.terms_onnx import rule_of

OPTIONS: list[dict[str, Any]] = [
    {},
    {"lowercase": False, "ngram_range": (1, 3)},
    {"ngram_range": (2, 2), "stop_words": "english"},
    {"stop_words": ["café", "the"], "strip_accents": "unicode"},
    {"strip_accents": "ascii", "token_pattern": r"\S+"},
    {"token_pattern": r"#(\w+)", "ngram_range": (1, 2)},
    {"analyzer": "char", "ngram_range": (1, 3)},
    {"analyzer": "char", "ngram_range": (3, 3), "strip_accents": "unicode", "lowercase": False},
    {"analyzer": "char_wb", "ngram_range": (1, 4)},
    {"analyzer": "char_wb", "ngram_range": (5, 6), "strip_accents": "ascii"},
]
TEXTS = st.text(max_size=30) | st.text("aAbÉé \n\t#ıİςΣß한국🙂\0̈1_", max_size=30)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(text=TEXTS)
def test_the_terms_are_those_of_scikit_learn(options: dict[str, Any], text: str) -> None:
    """Of any text, by any options that are data; also after a rule was written and read."""
    vectorizer = CountVectorizer(**options)
    rule = rule_of(vectorizer)
    (read,) = read_rules({"tidemill.terms": write_rules({"note": [rule]})})["note"]
    assert (read, read.maker()(text)) == (rule, vectorizer.build_analyzer()(text))


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_texts_have_the_terms_of_scikit_learn(text: str) -> None:
    """Each by all options."""
    for options in OPTIONS:
        assert rule_of(CountVectorizer(**options)).maker()(text) == CountVectorizer(**options).build_analyzer()(text)


def test_terms_are_marked_with_their_rule() -> None:
    """So a word of one rule is none of another's."""
    rules = [TermRule(), TermRule(lowercase=False, pattern="[A-Z]")]
    assert terms_maker(rules)("Ab cd") == ["0:ab", "0:cd", "1:A"]
    assert read_rules({}) == {}
    assert msgspec.json.decode(write_rules({"note": [TermRule()]})) == {"note": [{}]}


@pytest.mark.parametrize(
    ("options", "cause", "mend"),
    [
        ({"tokenizer": str.split}, "has a tokenizer of its own", "token_pattern"),
        ({"preprocessor": str.lower}, "has a preprocessor of its own", "strip_accents"),
        ({"analyzer": str.split}, "by a function", "char_wb"),
        ({"strip_accents": str.lower}, "by a function", "char_wb"),
        ({"input": "filename"}, "reads files", "leave input= out"),
    ],
)
def test_code_of_ones_own_is_refused(options: dict[str, Any], cause: str, mend: str) -> None:
    """In one line with what to write instead."""
    with pytest.raises(TidemillError, match=cause) as raised:
        rule_of(CountVectorizer(**options))
    assert mend in raised.value.mend
