"""The staircase of packages in shared/tidemill: arrows between them go down only, and only where the README's table allows them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.repo.sources import ROOT

HOUSE = ROOT / "shared" / "tidemill"
README = (HOUSE / "README.md").read_text()
FACE = "__init__"


def allowed() -> dict[str, set[str]]:
    """Package -> the packages it may use, from the README's table, lowest first."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ?([^|]*?) ?\|$", README, re.MULTILINE)
    packages = [name for name, _ in rows]
    return {name: set(packages) if uses == "everything" else set(uses.split(", ")) - {""} for name, uses in rows}


def package_of(name: str) -> str:
    """The package of what stands first below `tidemill` in a path or a dotted name: single files are the ground, other names the face."""
    if (HOUSE / name).is_dir():
        return name
    return "ground" if (HOUSE / f"{name}.py").is_file() and name != FACE else FACE


def modules_of(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path) -> set[tuple[str, str, str]]:
    """(file, its package, package it imports) for every import from one package into another."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] == "templates":  # projects of users, copied and never imported
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for module in modules_of(node):
                head, *rest = module.split(".")
                home, target = package_of(parts[0].removesuffix(".py")), package_of(rest[0] if rest else FACE)
                if head == "tidemill" and target != home:
                    found.add(("/".join(parts), home, target))
    return found


def breaches(found: set[tuple[str, str, str]]) -> list[str]:
    """The arrows that the table does not allow. The face shows declarations and aggregates, and is used by nothing below."""
    table = allowed()
    return sorted(
        f"{file}: {home} may not use {target}"
        for file, home, target in found
        if target not in (table.get(home, set()) if home != FACE else {"declarations"})
    )


def test_arrows_go_down_only() -> None:
    """No package uses another that the table does not allow it."""
    found = arrows(HOUSE)
    assert len(found) > 100
    assert breaches(found) == []


def test_the_table_names_every_package() -> None:
    """Neither a package without a step nor a step without a package."""
    packages = {path.name for path in HOUSE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert set(allowed()) == packages | {"ground"}


def test_the_table_is_a_staircase() -> None:
    """A package may use only what stands above it in the table, so that no circle can be allowed."""
    seen: set[str] = set()
    for name, uses in allowed().items():
        assert uses <= seen or name == "cli", f"{name} uses {uses - seen}, which stands below it in the table"
        seen.add(name)


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("kernel/view.py", "import tidemill.redis.link", "kernel may not use redis"),
        ("kernel/view.py", "def f():\n    from tidemill.runtime import metrics", "kernel may not use runtime"),
        ("clock.py", "from tidemill.kafka.client import consumer", "ground may not use kafka"),
        ("stats/roc.py", "from tidemill import Event", f"stats may not use {FACE}"),
        ("kernel/view.py", "from tidemill.declarations.views import FeatureView", None),
    ],
)
def test_the_staircase_can_fail(tmp_path: Path, file: str, text: str, breach: str | None) -> None:
    """An arrow that goes up is found wherever the import stands."""
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert breaches(arrows(tmp_path)) == ([] if breach is None else [f"{file}: {breach}"])


def test_nothing_in_shared_imports_faust() -> None:
    """Faust belongs to feature computation."""
    assert [
        path
        for path in HOUSE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for m in modules_of(node)
        if m.startswith("faust")
    ] == []


def walks_of(text: str) -> dict[str, list[str]]:
    """Walk -> the files of its numbered steps, in order, from the section "Walks" of a document."""
    section = text.partition("\n## Walks\n")[2].partition("\n## ")[0]
    return {part.partition("\n")[0]: re.findall(r"^\d+\. `([\w./]+)`: ", part, re.MULTILINE) for part in section.split("\n### ")[1:]}


def slips(walks: dict[str, list[str]]) -> list[str]:
    """Files of a walk that do not exist, from the root or the staircase, or that it names twice."""
    missing = [
        f"{walk}: no {file}" for walk, files in walks.items() for file in files if not ((HOUSE / file).is_file() or (ROOT / file).is_file())
    ]
    twice = [f"{walk}: {file} twice" for walk, files in walks.items() for file in dict.fromkeys(files) if files.count(file) > 1]
    return missing + twice


def test_walks_name_each_file_once() -> None:
    """The walks of an event, a prediction and a training run: every file exists, and none comes twice in one walk."""
    walks = walks_of(README)
    assert list(walks) == ["One event", "One prediction", "One training run", "One changed view"]
    assert all(12 <= len(files) <= 20 for files in walks.values())
    assert slips(walks) == []


def test_a_walk_can_be_wrong() -> None:
    """A file that does not exist and one that comes again are found."""
    text = (
        "x\n## Walks\n\n### W\n\n1. `errors.py`: a\n2. `kernel/nowhere.py`: b\n3. `errors.py`: c\n\n## Next\n\n### V\n\n1. `names.py`: d\n"
    )
    assert slips(walks_of(text)) == ["W: no kernel/nowhere.py", "W: errors.py twice"]
