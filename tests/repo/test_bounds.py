"""Libraries whose private parts are used have an upper bound: another minor version may have other private parts."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.repo.sources import ROOT

DISTRIBUTION = {"faust": "faust-streaming", "mode": "faust-streaming", "sklearn": "scikit-learn"}
"""Where the name of an import is not that of what is installed. `mode` comes with Faust."""
PRIVATE = {
    "aiokafka": ("shared/tidemill/kafka/patches.py",),
    "skl2onnx": ("shared/tidemill/training/conversion.py",),
    "faust-streaming": ("services/tidemill_features/faust_transport.py",),
}
"""Where the private parts lie."""
TRUSTED = {"deltalake"}
"""Nothing private is used, but what a minor version does has been proved by tests and is relied upon: merges that double rows."""
OURS = {"self", "cls", "super"}


@cache
def requirements() -> list[Requirement]:
    """Every dependency of every extra, but those on the project itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return [wanted for wanted in map(Requirement, texts) if wanted.name != "tidemill"]


@cache
def installed() -> dict[str, Version]:
    """What infra/constraints.txt installs."""
    lines = (ROOT / "infra" / "constraints.txt").read_text().splitlines()
    pairs = [line.split(";")[0].split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name.strip()): Version(version.strip()) for name, version in pairs}


def bounded(wanted: Requirement) -> bool:
    """Whether the next minor version is refused."""
    found = installed()[canonicalize_name(wanted.name)]
    return not wanted.specifier.contains(Version(f"{found.major}.{found.minor + 1}.0"))


@pytest.mark.parametrize("wanted", requirements(), ids=str)
def test_what_is_tested_is_allowed(wanted: Requirement) -> None:
    """The version that tests run with lies within the bounds."""
    assert wanted.specifier.contains(installed()[canonicalize_name(wanted.name)])


@pytest.mark.parametrize("name", sorted({*PRIVATE, *TRUSTED}))
def test_libraries_with_private_parts_are_bounded(name: str) -> None:
    """The next minor version of each is another one than was tested, wherever it is asked for."""
    asked = [wanted for wanted in requirements() if canonicalize_name(wanted.name) == name]
    assert asked
    for wanted in asked:
        assert bounded(wanted), f"{wanted}: bound it below the minor version after {installed()[name]}"


def private_uses(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Private names reached through something that is not the module's own, and their lines."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own |= {node.attr for node in attributes if _on_self(node)}
    for node in attributes:
        if re.match(r"_[a-z]", node.attr) and node.attr not in own:
            yield node.attr, node.lineno


def _on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in OURS


FROM_THE_LANGUAGE = {"_asdict", "_exit", "_getframe", "_replace", "_make", "_fields"}


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted([*(ROOT / "shared").rglob("*.py"), *(ROOT / "services").rglob("*.py")]), ids=lambda file: file.name)
def test_private_parts_of_libraries_lie_where_the_table_says(file: Path) -> None:
    """A file that reaches into a library is in the table above, and with it the bound of that library."""
    place = str(file.relative_to(ROOT))
    if place not in {listed for files in PRIVATE.values() for listed in files}:
        assert [found for found in private_uses(ast.parse(file.read_text())) if found[0] not in FROM_THE_LANGUAGE] == []


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, files in PRIVATE.items() for place in files])
def test_the_table_is_not_out_of_date(name: str, place: str) -> None:
    """Each file in the table imports the library and does reach into it."""
    tree = ast.parse((ROOT / place).read_text())
    roots = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert name in {DISTRIBUTION.get(root, root) for root in roots}
    assert list(private_uses(tree))
