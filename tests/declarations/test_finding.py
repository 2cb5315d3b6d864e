"""Which declarations belong to a project: all that its file makes, wherever they lie, each once and in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.declarations.test_project import names, write

from tidemill.declarations.project import Project, load_project
from tidemill.errors import DeclarationError

HEAD = """
from tidemill import Event, FeatureView, Model, Outcome, Recording, Request, count
sold = Event("sold", {"at": int, "id": str, "shop": str, "zone": str, "ok": bool}, time="at")
def view(name, entity="shop"):
    return FeatureView(name, sold, entity, [count()])
def model(name):
    return Model(name, sold, "at", "id", [view("of_" + name)], Outcome(sold, "ok", subject="id"), list)
"""


def loaded(folder: Path, text: str) -> Project:
    """A project that declares an event and these."""
    write(folder / "shop", HEAD + text)
    return load_project(folder / "shop")


@pytest.mark.parametrize(
    "text",
    [
        "views = [view(name) for name in 'ab']",
        "views = (view('a'), view('b'))",
        "views = {'x': view('a'), 'y': [view('b')]}",
        "views = {'x': {'y': (view('a'), {'z': view('b')})}}",
        "views = {view('a'): 1, view('b'): 2}",
        "views = [view('a').select('count'), view('b')]",
        "a = view('a'); views = [a, view('b'), a]",
        "views = [view('a')]; views += [views, view('b')]",
        "for name in 'ab':\n    view(name)",
        "def make():\n    view('a')\n    view('b')\nmake()",
        "for name in 'ab':\n    globals()[name] = view(name)",
        "class Views:\n    a = view('a')\n    b = view('b')",
        "b = [view('a'), view('b')][1]",
    ],
)
def test_views_are_found_wherever_they_lie(text: str, tmp_path: Path) -> None:
    """In containers of any depth, in loops, in functions, in a class, or under no name at all."""
    project = loaded(tmp_path, text)
    assert sorted(project.views) == ["a", "b"]
    assert list(project.events) == ["sold"]


def test_models_of_a_list_and_of_a_loop(tmp_path: Path) -> None:
    """With the views that only they have; a recording in a dict is found too."""
    text = "models = [model('late')]\nfor name in ('early', 'never'):\n    model(name)\n"
    project = loaded(tmp_path, text + "kept = {'year': Recording('year', lambda start, end: iter(()), '2020-01-01', '2021-01-01')}\n")
    assert names(project) == (["sold"], ["of_late", "of_early", "of_never"], ["late", "early", "never"], ["year"])


def test_the_order_is_that_of_the_file(tmp_path: Path) -> None:
    """Of names and of their containers; what has no name comes last, in the order in which it was made."""
    text = "view('x')\nviews = [view('b'), view('a')]\nview('y')\nlater = view('c')\n"
    assert list(loaded(tmp_path, text).views) == ["b", "a", "c", "x", "y"]


def test_what_a_file_only_imports_is_not_declared_by_it(tmp_path: Path) -> None:
    """A neighbour's declarations belong to the project that names one of them, or a container of them, and no others do."""
    write(tmp_path / "shop", HEAD + "views = [view('a')]\nother = view('b')\nview('c')\n", "others.py")
    write(tmp_path / "shop", "import others\nfrom others import sold\n")
    assert list(load_project(tmp_path / "shop").views) == []
    write(tmp_path / "store", HEAD + "views = [view('a')]\nother = view('b')\nview('c')\n", "others.py")
    write(tmp_path / "store", "from others import views\n")
    assert list(load_project(tmp_path / "store").views) == ["a"]


def test_a_function_of_another_file_declares_for_who_calls_it(tmp_path: Path) -> None:
    """Also when nothing is done with what it returns."""
    write(tmp_path / "shop", HEAD + "view('imported')\n", "others.py")
    write(tmp_path / "shop", "from others import model, view\nfor name in 'ab':\n    view(name)\nmodel('late')\n")
    assert names(load_project(tmp_path / "shop")) == (["sold"], ["a", "b", "of_late"], ["late"], [])


def test_a_name_that_means_another_one_now(tmp_path: Path) -> None:
    """Python's last word counts, as it always did; what is made and could not be finished is not there."""
    project = loaded(tmp_path, "a = view('a')\na = view('a', 'zone')\ntry:\n    view('b', 'nothing')\nexcept Exception:\n    pass\n")
    assert [(name, found.key.field) for name, found in project.views.items()] == [("a", "zone")]


@pytest.mark.parametrize("text", ["views = [view('a'), view('a')]", "for _ in range(2):\n    view('a')"])
def test_two_of_one_name(text: str, tmp_path: Path) -> None:
    """Are refused in a list and a loop as they are by name."""
    with pytest.raises(DeclarationError, match="FeatureView 'a' is declared twice"):
        loaded(tmp_path, text)


def test_a_module_that_was_imported_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it again finds the same, also what has no name."""
    write(tmp_path / "shops", "", "__init__.py")
    write(tmp_path / "shops", HEAD + "view('a')\n", "listed.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert [list(load_project("shops.listed").views) for _ in range(2)] == [["a"], ["a"]]
