"""Mistakes of Python in a project's file: file and line, the line itself, and the nearest right name, in one error without a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.declarations.test_project import write

from tidemill.declarations.project import load_project
from tidemill.errors import ProjectError

HEAD = """import json
import tidemill as tm
from tidemill import Event, FeatureView, count
sold = Event("sold", {"at": int, "shop": str}, time="at")
helpers = json
"""
LINE = HEAD.count("\n") + 1
CASES = [
    ("FeatureView('v', sold, 'shop', [count()], widows=['1h'])", "argument 'widows'", "did you mean windows=?"),
    ("FeatureView('v', sold, 'shop', [count()], were='x')", "argument 'were'", "did you mean where=?"),
    ("Event('paid', {'at': int}, tim='at')", "missing a required argument: 'time'", "did you mean time=?"),
    ("FeatureView('v', sold, 'shop', [count(nam='n')])", "TypeError: count() got an unexpected keyword argument 'nam'", "mean name=?"),
    ("FeatureView('v', sold, 'shop', [tm.mean('at', window=['1h'])])", "TypeError: mean() got an unexpected", "did you mean windows=?"),
    ("FeatureView('v', sold, 'shop', [mean('at')])", "NameError: name 'mean' is not defined", "import it: from tidemill import mean"),
    ("FeatureView('v', solt, 'shop', [count()])", "NameError: name 'solt' is not defined", "did you mean sold?"),
    ("FeatureVeiw('v', sold, 'shop', [count()])", "NameError: name 'FeatureVeiw' is not defined", "did you mean FeatureView?"),
    ("tm.FeatureVeiw('v', sold, 'shop', [count()])", "AttributeError: module 'tidemill' has no attribute", "did you mean FeatureView?"),
    ("sold.partition", "AttributeError: 'Event' object has no attribute 'partition'", "did you mean partitions?"),
    ("from tidemill import FeatureVew", "ImportError: cannot import name 'FeatureVew' from 'tidemill'", "did you mean FeatureView?"),
    ("from json import lods", "ImportError: cannot import name 'lods' from 'json'", "did you mean loads?"),
    ("import tidemil", "ModuleNotFoundError: No module named 'tidemil'", "did you mean tidemill?"),
    ("import neigbour", "ModuleNotFoundError: No module named 'neigbour'", "did you mean neighbour?"),
    ("import nothing_of_that_name_at_all", "ModuleNotFoundError", "install nothing_of_that_name_at_all, or correct"),
    ("Event('paid', 5, time='at')", "TypeError: 'int' object is not iterable", "correct this line"),
    ("count('a', 'b', 'c')", "TypeError: count() takes", "correct this line"),
    ("sold + 1", "TypeError: unsupported operand", "correct this line"),
    ("{}['shop']", "KeyError: 'shop'", "correct this line"),
    ("json.loads('{')", "JSONDecodeError", "correct this line"),
    ("sold = Event('sold' {'at': int})", "SyntaxError: invalid syntax", "correct this line"),
    ("raise ValueError", "ValueError", "correct this line"),
]


@pytest.mark.parametrize(("text", "cause", "mend"), CASES, ids=[text for text, _, _ in CASES])
@pytest.mark.parametrize("installed", [False, True])
def test_a_mistake_is_told_with_its_line(
    text: str, cause: str, mend: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Python says of it, in a file and in a module."""
    write(tmp_path, "", "neighbour.py")
    path = write(tmp_path, f"{HEAD}{text}\n", "its_project.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProjectError) as caught:
        load_project("its_project" if installed else path)
    assert caught.value.message.startswith(f"{path}:{LINE}: ")
    assert cause in caught.value.message
    assert caught.value.message.endswith(f", in: {text}")
    assert mend in caught.value.mend


def test_a_mistake_in_a_function_is_told_where_it_is(tmp_path: Path) -> None:
    """The innermost line in the project's folder, be it in a neighbour, and not one of the libraries that it calls."""
    write(tmp_path, "def make(event):\n    return event.nam\n", "parts.py")
    path = write(tmp_path, HEAD + "from parts import make\nmake(sold)\n")
    with pytest.raises(ProjectError) as caught:
        load_project(path)
    assert str(caught.value) == (
        f"{tmp_path / 'parts.py'}:2: AttributeError: 'Event' object has no attribute 'nam', in: return event.nam; did you mean name?"
    )


def test_a_wrong_name_in_a_condition_is_told_with_the_nearest_field(tmp_path: Path) -> None:
    """A condition is Python too."""
    path = write(tmp_path, HEAD + "FeatureView('v', sold, 'shop', [count()], where='shp == 1')\n")
    with pytest.raises(ProjectError, match="did you mean shop\\?"):
        load_project(path)


def test_a_folder_named_like_a_module_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that fails before its module is found is told by its name."""
    write(tmp_path / "shops", "1 / 0\n", "__init__.py")
    write(tmp_path / "shops", HEAD, "corner.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProjectError, match="ZeroDivisionError: division by zero"):
        load_project("shops.corner")
