"""Loading a project by its folder, its file or its module's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidemill.declarations.project import Project, load_project
from tidemill.errors import DeclarationError, ProjectError, TidemillError

DECLARATIONS = """
from tidemill import Event, FeatureView, Model, Outcome, Recording, Request, count
sold = Event("sold", {"at": int, "id": str, "shop": str}, time="at")
paid = Event("paid", {"at": int, "id": str, "late": bool}, time="at")
shops = FeatureView("shops", sold, "shop", [count()])
late = Model("late", sold, "at", "id", [shops], Outcome(paid, "late", subject="id"), list)
year = Recording("year", lambda start, end: iter(()), "2020-01-01", "2021-01-01")
"""


def write(folder: Path, text: str, name: str = "project.py") -> Path:
    """Writes a module, with its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def names(project: Project) -> tuple[list[str], list[str], list[str], list[str]]:
    """What a project declares."""
    return list(project.events), list(project.views), list(project.models), list(project.recordings)


def test_by_folder(tmp_path: Path) -> None:
    """A folder with project.py; its name is the project's, with underscores."""
    write(tmp_path / "my-shop", DECLARATIONS)
    for spec in (tmp_path / "my-shop", str(tmp_path / "my-shop")):
        project = load_project(spec)
        assert (project.name, project.root) == ("my_shop", tmp_path / "my-shop")
        assert names(project) == (["sold", "paid"], ["shops"], ["late"], ["year"])


def test_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any file, by any path, under any name; PROJECT in it gives another name than the folder's."""
    write(tmp_path / "shop", DECLARATIONS + 'PROJECT = "corner"\n', "declared.py")
    monkeypatch.chdir(tmp_path)
    project = load_project("shop/declared.py")
    assert (project.name, project.root) == ("corner", tmp_path / "shop")


def test_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed module by its dotted name; the last part is the project's name and it has no folder of its own."""
    write(tmp_path / "shops", "", "__init__.py")
    write(tmp_path / "shops", DECLARATIONS, "corner.py")
    monkeypatch.syspath_prepend(tmp_path)
    project = load_project("shops.corner")
    assert (project.name, project.root) == ("corner", None)
    assert names(project)[1] == ["shops"]


def test_neighbours_can_be_imported(tmp_path: Path) -> None:
    """A project anywhere on the disk may import a module that lies beside it."""
    write(tmp_path / "shop", "from tidemill import Event\nsold = Event('sold', {'at': int}, time='at')\n", "its_events.py")
    write(tmp_path / "shop", "from its_events import sold\n")
    assert names(load_project(tmp_path / "shop"))[0] == ["sold"]


def test_two_projects_with_neighbours_of_the_same_name(tmp_path: Path) -> None:
    """Each project means the files beside it, a package too, however often and in whatever order they are loaded."""
    for shop in ("corner", "market"):
        write(tmp_path / shop, f'TOPIC = "{shop}.sold"\n', "topics.py")
        write(tmp_path / shop / "fields", "", "__init__.py")
        write(tmp_path / shop / "fields", f'FIELDS = {{"at": int, "{shop}": str}}\n', "sale.py")
        text = 'Event("sold", FIELDS, time="at", topic=TOPIC)'
        write(tmp_path / shop, f"from fields.sale import FIELDS\nfrom topics import TOPIC\nfrom tidemill import Event\nsold = {text}\n")
    for shop in ("corner", "market", "market", "corner"):
        event = load_project(tmp_path / shop).events["sold"]
        assert (event.topic, list(event.fields)) == (f"{shop}.sold", ["at", shop])


def test_an_edit_within_the_second(tmp_path: Path) -> None:
    """What is loaded is what the file says, even when the file keeps its length and the second of its last change."""
    for name in ("sold", "paid"):
        path = write(tmp_path / "shop", f'from tidemill import Event\nevent = Event("{name}", {{"at": int}}, time="at")\n')
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert list(load_project(path).events) == [name]


def test_what_is_referred_to_belongs_to_the_project(tmp_path: Path) -> None:
    """Events and views that only a model or a view names are found through it."""
    write(tmp_path / "shop", DECLARATIONS, "others.py")
    write(tmp_path / "shop", "import others\nmodel = others.late\n")
    assert names(load_project(tmp_path / "shop")) == (["sold", "paid"], ["shops"], ["late"], [])
    write(tmp_path / "store", "import others\npart = others.shops.select('count')\n")
    assert names(load_project(tmp_path / "store"))[:2] == (["sold"], ["shops"])


def test_views_of_an_event(tmp_path: Path) -> None:
    """The views that an event feeds, and none for the others."""
    write(tmp_path, DECLARATIONS)
    project = load_project(tmp_path)
    assert [view.name for view in project.views_of(project.events["sold"])] == ["shops"]
    assert project.views_of(project.events["paid"]) == []


def test_a_project_can_be_loaded_twice(tmp_path: Path) -> None:
    """A changed file is read again."""
    write(tmp_path, DECLARATIONS)
    load_project(tmp_path)
    write(tmp_path, DECLARATIONS.replace('"shops"', '"stores"'))
    assert names(load_project(tmp_path))[1] == ["stores"]


@pytest.mark.parametrize(
    ("spec", "cause", "mend"),
    [
        (".", "has no project.py", "write your declarations into project.py"),
        ("missing.py", "there is no file missing.py", "TIDEMILL_PROJECT"),
        ("./missing", "there is no folder or file './missing'", "TIDEMILL_PROJECT"),
        ("/missing", "there is no folder or file '/missing'", "TIDEMILL_PROJECT"),
        ("..missing", "there is no folder or file '..missing'", "TIDEMILL_PROJECT"),
        ("missing module", "there is no folder or file", "TIDEMILL_PROJECT"),
        ("no_such_module", "no folder, file or module 'no_such_module'", "TIDEMILL_PROJECT"),
        ("json.nothing", "no folder, file or module 'json.nothing'", "TIDEMILL_PROJECT"),
        ("json", "json declares no Event", "declare at least one Event"),
    ],
)
def test_what_cannot_be_found(spec: str, cause: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong way to name a project is answered with what was looked for and what to pass."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError) as caught:
        load_project(spec)
    assert cause in caught.value.message
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("x = 5", "declares no Event"),
    ],
)
@pytest.mark.parametrize("installed", [False, True])
def test_what_cannot_be_imported(text: str, cause: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is passed on, with the file's or the module's name."""
    write(tmp_path, text, "its_project.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProjectError) as caught:
        load_project("its_project" if installed else tmp_path / "its_project.py")
    assert cause in str(caught.value)
    assert "its_project" in str(caught.value)
    assert caught.value.mend


@pytest.mark.parametrize("installed", [False, True])
def test_a_mistake_in_a_project_keeps_its_place(installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A declaration error comes through with file and line of the project."""
    path = write(tmp_path, "from tidemill import Event\n\nsold = Event('sold', {'at': float}, time='at')\n", "its_project.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeclarationError) as caught:
        load_project("its_project" if installed else path)
    assert caught.value.where == f"{path}:3"


def test_a_folder_name_that_is_no_name(tmp_path: Path) -> None:
    """A folder that cannot name topics needs PROJECT."""
    path = write(tmp_path / "9 lives", DECLARATIONS)
    with pytest.raises(TidemillError, match="PROJECT: '9 lives' is not a usable name") as caught:
        load_project(path.parent)
    assert str(path) in str(caught.value)
