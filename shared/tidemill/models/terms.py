"""From a text to its terms, as the vectorizers of scikit-learn make them: words or stretches of characters, alone and in a row.

A model has a rule for each vectorizer of its pipeline. They stand in the metadata of its ONNX file, whose graph counts the terms. It is done here
and not in the graph since ONNX knows other words and other small letters than Python beyond ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, TypeVar

import msgspec

METADATA = "tidemill.terms"
"""The key of an ONNX file's metadata under which the rules stand: for each input that takes terms, a list of them, as JSON."""

T = TypeVar("T", str, list[str])

_SPACES = re.compile(r"\s\s+")


class TermRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a text becomes terms. `accents`: how they are taken off; `unit`: a word, a character, or a character within a word; `pattern`: of a word;
    `least`, `most`: how many units in a row make a term."""

    lowercase: bool = True
    accents: Literal["ascii", "unicode"] | None = None
    unit: Literal["word", "char", "char_wb"] = "word"
    pattern: str = r"(?u)\b\w\w+\b"
    stop_words: list[str] = []
    least: int = 1
    most: int = 1

    def maker(self) -> Callable[[str], list[str]]:
        """A function that gives the terms of a text, in order, each as often as it is there. Raises re.error."""
        find, stops, lengths = re.compile(self.pattern).findall, frozenset(self.stop_words), range(self.least, self.most + 1)

        def make(text: str) -> list[str]:
            text = _without_accents(text.lower() if self.lowercase else text, self.accents)
            if self.unit == "word":
                found = [word for word in find(text) if word not in stops]
                return found if self.most == 1 else [" ".join(part) for part in _rows_of(found, lengths)]
            text = _SPACES.sub(" ", text)
            if self.unit == "char":
                return list(_rows_of(text, lengths))
            return [term for word in text.split() for term in _within(f" {word} ", lengths)]

        return make


def marked(number: int, term: str) -> str:
    """A term as the graph gets it: with the number of the rule that made it."""
    return f"{number}:{term}"


def terms_maker(rules: Sequence[TermRule]) -> Callable[[str], list[str]]:
    """A function that gives the marked terms of a text by all rules."""
    makers = [rule.maker() for rule in rules]
    return lambda text: [marked(number, term) for number, make in enumerate(makers) for term in make(text)]


def write_rules(rules: Mapping[str, Sequence[TermRule]]) -> str:
    """The rules of each input as they stand in the metadata."""
    return msgspec.json.encode(rules).decode()


def read_rules(metadata: Mapping[str, str]) -> dict[str, list[TermRule]]:
    """The rules in the metadata of an ONNX file, by input; none where there are none. Raises msgspec.DecodeError."""
    return _decode(metadata[METADATA]) if METADATA in metadata else {}


_decode = msgspec.json.Decoder(dict[str, list[TermRule]]).decode


def _without_accents(text: str, how: str | None) -> str:
    if how is None or text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text)
    if how == "ascii":
        return apart.encode("ascii", "ignore").decode()
    return "".join(character for character in apart if not unicodedata.combining(character))


def _rows_of(units: T, lengths: Sequence[int]) -> Iterator[T]:
    """All stretches of these lengths, the short ones first."""
    return chain.from_iterable((units[i : i + length] for i in range(len(units) - length + 1)) for length in lengths)


def _within(word: str, lengths: Sequence[int]) -> Iterator[str]:
    """The stretches of a word between spaces; a word that is not longer than a length is there once."""
    for length in lengths:
        yield from _rows_of(word, [length]) if len(word) >= length else [word]
        if len(word) <= length:
            return
