"""Rules about the project's files: what they may name, how long they may be, what they must say."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.repo.sources import CODE, ROOT, functions_of, imports_of, lines_of, name_of, python_files, tracked

FILE_LINES, FUNCTION_LINES = 400, 60
# "In flight" is said of requests, and a preflight of checks; everything else about flying belongs to the example.
FLYING = re.compile(r"(?<!in[ _-])(?<!in)(?<!pre)flight|airline|airport|tailnum|dep_delay|arr_delay|\bjfk\b|\bewr\b", re.IGNORECASE)
MACHINES = re.compile(r"(?<![\w.}])/(home|root|Users|work|mnt|workspace)/\w|[A-Z]:\\\\?Users|file://" + r"/\w")
REGISTRIES = re.compile(
    r"\b(pypi|pythonhosted|npmjs|yarnpkg|maven|mvnrepository|docker|gcr|ghcr|quay|crates|rubygems|anaconda|conda)" + r"\.(org|io|com)\b"
)
# "Behind" is read as "before" by one and as "after" by the next, once in an instruction to operators.
MISLEADING = re.compile(r"\bbehind\b", re.IGNORECASE)
TEXT = [path for path in tracked() if b"\0" not in path.read_bytes()[:1000]]


def findings(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Where a pattern occurs: file, line and the words."""
    return [
        f"{name_of(path)}:{number}: {match[0]}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        for match in pattern.finditer(line)
    ]


def test_the_product_knows_nothing_of_the_example() -> None:
    """No line of shared/, services/ or schemas/ is about flights: they serve any project."""
    paths = [path for path in TEXT if path.relative_to(ROOT).parts[0] in ("shared", "services", "schemas")]
    assert len(paths) > 100
    assert findings(FLYING, paths) == []


@pytest.mark.parametrize(
    ("text", "found"), [("max_in_flight", 0), ("in-flight", 0), ("inflight", 0), ("flights", 1), ("next_flight", 1), ("JFK", 1)]
)
def test_the_words_of_the_example_are_told_apart(text: str, found: int) -> None:
    """What is in flight is no flight."""
    assert len(FLYING.findall(text)) == found


def test_no_text_misleads_about_order() -> None:
    """Product and documents say "before" and "after", "lags" and "late by": never "behind", which readers take for either."""
    places = ("shared", "services", "docs", "README.md", "CONTRIBUTING.md")
    paths = [path for path in TEXT if path.relative_to(ROOT).parts[0] in places]
    assert len(paths) > 100
    assert findings(MISLEADING, paths) == []


@pytest.mark.parametrize(
    ("text", "found"), [("it is behind", 1), ("Behind it", 1), ("complete(behind)", 1), ("FeaturesBehind", 0), ("before, after", 0)]
)
def test_misleading_words_are_recognised(text: str, found: int) -> None:
    """The word is found in sentences and as a name; the names of alerts, which other tools know, stay."""
    assert len(MISLEADING.findall(text)) == found


def classes_of(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Where each class name is defined, inner classes included. `modules`: text by name."""
    places: dict[str, list[str]] = {}
    for module, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{module}:{node.lineno}")
    return places


def test_each_class_name_has_one_meaning() -> None:
    """No two classes of shared/ and services/ have one name."""
    places = classes_of({name_of(path): path.read_text() for path in python_files("shared", "services")})
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_class_name_used_twice_is_recognised() -> None:
    """A second class of one name is seen in another module and inside another class."""
    modules = {"a.py": "class One: ...", "b.py": "class Two:\n    class One: ..."}
    assert classes_of(modules) == {"One": ["a.py:1", "b.py:2"], "Two": ["b.py:1"]}


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Paths of one machine and hosts of package registries do not belong into the project."""
    paths = [path for path in TEXT if path != Path(__file__)]
    assert findings(MACHINES, paths) == []
    assert findings(REGISTRIES, paths) == []


@pytest.mark.parametrize(
    "text", ["/home/me/x", "see /root/x", "C:\\Users\\me", "file:///etc", "https://" + "pypi" + ".org/simple", "ghcr" + ".io/a/b"]
)
def test_machines_and_registries_are_recognised(text: str) -> None:
    """The patterns find what they are for."""
    assert MACHINES.search(text) or REGISTRIES.search(text)


def test_no_file_came_by_accident() -> None:
    """What is no text is a picture of a page, or a stored value of the golden store: nothing that a tool left is committed."""
    binary = [name_of(path) for path in tracked() if path not in TEXT]
    assert [name for name in binary if not re.match(r"docs/\w+\.png$|tests/golden/store/", name)] == []


def test_constraints_are_names_and_versions() -> None:
    """infra/constraints.txt pins exact versions and names no place to get them from."""
    lines = (ROOT / "infra" / "constraints.txt").read_text().splitlines()
    assert len(lines) > 50
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+( *; *[a-z_]+ *[=!<>]=? *['\"][\w.]+['\"])?", line)
    ] == []
    names = [line.partition("==")[0].lower() for line in lines]
    assert len(set(names)) == len(names)


def test_files_are_short() -> None:
    """No Python file is longer than a few screens."""
    assert [f"{name_of(path)}: {lines_of(path)}" for path in python_files(*CODE) if lines_of(path) > FILE_LINES] == []


@pytest.mark.slow
def test_functions_are_short() -> None:
    """No function is longer than a screen; a class may be."""
    long = []
    for path in python_files(*CODE):
        for function in functions_of(path):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES:
                long.append(f"{name_of(path)}: {function.name}: {length}")
    assert long == []


@pytest.mark.slow
def test_every_test_says_what_it_shows() -> None:
    """Each test has a docstring whose first line is a sentence."""
    silent = []
    for path in python_files("tests"):
        for function in functions_of(path):
            if function.name.startswith("test_"):
                text = ast.get_docstring(function) or ""
                if not re.match(r"\S[^\n]*[.:;,)\w]", text) or len(text) < 15:
                    silent.append(f"{name_of(path)}: {function.name}")
    assert silent == []


def test_every_module_says_what_it_is() -> None:
    """Each module of the product begins with a docstring."""
    paths = [path for path in python_files("shared", "services", "examples", "benchmarks") if path.read_text().strip()]
    assert [name_of(path) for path in paths if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_there_are_as_many_lines_of_tests_as_of_source(record_property: pytest.FixtureRequest) -> None:
    """The product's Python has at least as many lines of tests."""
    source = sum(lines_of(path) for path in python_files("shared", "services"))
    tests = sum(lines_of(path) for path in python_files("tests"))
    record_property("test_lines_per_source_line", round(tests / source, 2))  # type: ignore[operator]
    assert tests >= source, f"{tests} lines of tests for {source} lines of source"


def test_no_cancellation_is_lost() -> None:
    """Python 3.11's `wait_for` forgets that it was cancelled when what it waits for is there at that moment; `asyncio.timeout` does not."""
    sources = [path for folder in ("shared", "services") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "asyncio.wait_for(" in path.read_text()] == []


def test_projects_start_fast() -> None:
    """Each service and command reads its project: what only training needs is imported in the function that gives the pipeline."""
    projects = [path for path in python_files("tests", "examples") if path.name == "project.py" and path.parent.name != "golden"]
    late = ("sklearn", "pandas", "lightgbm", "xgboost", "catboost")
    assert [name_of(path) for path in projects if {name.split(".")[0] for name in _at_import(path)} & set(late)] == []


def _at_import(path: Path) -> list[str]:
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [
        name for node in found for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    ]


def test_nothing_is_mocked() -> None:
    """Tests use the real parts; no mocking library is imported."""
    mocks = ("unittest.mock", "mock", "pytest_mock", "fakeredis", "responses", "respx")
    assert [f"{name_of(path)}: {name}" for path in python_files("tests") for name in imports_of(path) if name.startswith(mocks)] == []


def test_test_folders_are_no_packages() -> None:
    """Test modules are found by path; a package file would hide two modules of one name from each other."""
    assert [name_of(path) for path in tracked() if path.name == "__init__.py" and path.relative_to(ROOT).parts[0] == "tests"] == []
