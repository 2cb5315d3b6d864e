"""The contract of a model file: which declared inputs its columns are, what is missing in it, and what its output means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from tidemill.declarations import Model
from tidemill.declarations.models import class_name
from tidemill.errors import TidemillError
from tidemill.limits import MOST_CLASSES
from tidemill.models.inputs import UNKNOWN_TEXT

Gives = Literal["value", "probability", "logit", "probabilities", "logits"]
"""What an output is: a value; of the true class its probability, or the logit of it; one for each class, probabilities or logits."""
_SEVERAL = ("probabilities", "logits")


class ContractOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The output of a file that is served, by its name, and what it gives."""

    name: str
    gives: Gives


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`inputs`: the declared inputs in the order of the columns of the file's only input; or, for a file of several inputs, those of each by
    its name (a list will do where each input has the name of a declared one). `missing`: what stands for a missing value, by the input's
    name: a number, or a text where the file takes texts; a missing number is NaN without. `categories`: for each input that is a text, the
    texts that the file knows: a list, whose places are their numbers, or the number of each. `unknown`: what stands for any other text;
    without, the same as for a missing one.

    `classes`: of `probabilities` or `logits`, in order; without, these are of false and true. `examples`: a Parquet or JSON file of rows, with
    their inputs by name and what must be served as `expected`; a relative path starts at the contract.
    """

    inputs: list[str] | dict[str, list[str]]
    output: ContractOutput
    missing: dict[str, float | str] = {}
    categories: dict[str, list[str] | dict[str, float]] = {}
    unknown: dict[str, float | str] = {}
    classes: list[str] = []
    examples: str = ""

    def __post_init__(self) -> None:
        taken, texts = self.taken, self.categories
        if not taken or len(set(taken)) != len(taken):
            raise ValueError("inputs: name at least one, and each once")
        if stray := sorted({*self.missing, *self.categories, *self.unknown} - set(taken)):
            raise ValueError(f"missing, categories, unknown: {stray[0]!r} is none of the inputs")
        if stray := sorted(self.unknown.keys() - texts.keys()):
            raise ValueError(f"unknown: {stray[0]!r} has no categories")
        if empty := [name for name, known in texts.items() if not known or len(set(known)) != len(known) or UNKNOWN_TEXT in known]:
            raise ValueError(f"categories: {empty[0]!r} needs texts, each once")
        if self.classes and (
            self.output.gives not in _SEVERAL or not 2 <= len(self.classes) <= MOST_CLASSES or len(set(self.classes)) != len(self.classes)
        ):
            raise ValueError(f"classes: name 2 to {MOST_CLASSES}, each once, of an output that gives probabilities or logits")

    @property
    def taken(self) -> list[str]:
        """The declared inputs that the file takes, in its order."""
        return self.inputs if isinstance(self.inputs, list) else [name for names in self.inputs.values() for name in names]

    def texts(self, name: str) -> list[str]:
        """The texts of a category in the order of their numbers in tidemill, with one that stands for any other if the contract has it."""
        return [*self.categories[name], *([UNKNOWN_TEXT] if name in self.unknown else [])]

    def codes(self, name: str) -> list[float]:
        """The number that the file takes for each of `texts`."""
        known = self.categories[name]
        codes = list(known.values()) if isinstance(known, dict) else [float(place) for place in range(len(known))]
        return [*codes, *(_number(name, self.unknown[name]) for _ in range(name in self.unknown))]

    def missing_number(self, name: str) -> float | None:
        """The number that stands for a missing value; None without. Raises TidemillError for a text."""
        return _number(name, self.missing[name]) if name in self.missing else None


def _number(name: str, value: float | str) -> float:
    if isinstance(value, str):
        raise TidemillError(
            f"the contract gives {value!r} for {name!r}, of which the file takes numbers", mend="write a number in the contract"
        )
    return float(value)


def read_contract(path: Path) -> Contract:
    """The contract in a JSON file. Raises TidemillError."""
    try:
        return decode_contract(path.read_bytes())
    except OSError as error:
        raise TidemillError(f"{path} cannot be read: {error.strerror}", mend="name the JSON file of the contract") from error
    except msgspec.DecodeError as error:
        raise TidemillError(f"{path} is no contract: {error}", mend=_place(str(error)) or "see schemas/contract.v1.schema.json") from error


def _place(said: str) -> str:
    """Where a field belongs that stands at another place of the contract; nothing for any other mistake."""
    found = re.search(r"unknown field `(\w+)`(?: - at `\$\.(output)`)?$", said)
    if found and found[2] and found[1] in Contract.__struct_fields__:
        return f'write "{found[1]}" beside "output", not in it'
    if found and not found[2] and found[1] in ContractOutput.__struct_fields__:
        return f'write "{found[1]}" in "output"'
    return ""


def decode_contract(content: bytes) -> Contract:
    """Reads the bytes of a contract. A class that is a whole number has its digits as name, as everywhere. Raises msgspec.DecodeError."""
    read = msgspec.json.decode(content)
    if isinstance(read, dict) and isinstance(classes := read.get("classes"), list):
        read["classes"] = [class_name(one) if type(one) is int else one for one in classes]
    return msgspec.convert(read, Contract)


def check_declared(contract: Contract, model: Model) -> None:
    """Raises TidemillError unless the contract is about the inputs of a model, and its output about the model's outcome."""
    kinds = {column.name: column.kind for column in model.plan}
    if unknown := [name for name in contract.taken if name not in kinds]:
        raise TidemillError(
            f"model {model.name!r} has no input {unknown[0]!r}, which the contract names", mend=f"its inputs are {', '.join(kinds)}"
        )
    if words := [name for name, kind in kinds.items() if kind == "words"]:
        raise TidemillError(
            f"input {words[0]!r} of model {model.name!r} is words, and a file from elsewhere is given none",
            mend=f"declare Request({words[0]!r}, str) with categories in the contract, or train a pipeline that takes the words",
        )
    for name in contract.taken:
        text = kinds[name] in ("text", "category")
        if text != (name in contract.categories):
            raise TidemillError(
                f"input {name!r} is a {'text' if text else 'number'}, and the contract {'has no' if text else 'has'} categories of it",
                mend=f"{'give' if text else 'leave out'} categories of {name!r} in the contract",
            )
    _check_outcome(contract, model)


def _check_outcome(contract: Contract, model: Model) -> None:
    gives, outcome = contract.output.gives, model.outcome
    declared = outcome.class_names
    if declared and contract.classes and set(declared) != set(contract.classes):
        raise TidemillError(
            f"the classes of the contract ({', '.join(contract.classes)}) are not those of the outcome ({', '.join(declared)})",
            mend="give the contract the classes of the outcome, in the order of the file",
        )
    if (outcome.is_text or declared) and not contract.classes:
        raise TidemillError(
            f"outcome {outcome.value!r} is one of several classes, and the contract says {gives!r} without classes",
            mend='write "probabilities" or "logits", and "classes" in the order of the file',
        )
