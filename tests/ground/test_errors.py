"""The error tree: what every error carries."""

import inspect
import subprocess
import sys

import pytest

from tidemill import errors
from tidemill.errors import (
    DeclarationError,
    FenceConflict,
    InvalidEvent,
    MissingExtra,
    NoSuchVersion,
    NotDeployed,
    NotFound,
    StoreError,
    TidemillError,
    UnknownView,
)

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_belongs_to_the_tree(kind: type[Exception]) -> None:
    """Whoever catches TidemillError catches all, and every error has an HTTP error status and a docstring."""
    assert issubclass(kind, TidemillError)
    assert 400 <= kind.http_status < 600
    assert kind.__doc__


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_is_the_real_one(kind: type[TidemillError]) -> None:
    """The drawing at the top of the module names every class with its status."""
    assert errors.__doc__ is not None
    line = next((line for line in errors.__doc__.splitlines() if line.lstrip("│ ├└─").startswith(f"{kind.__name__} ")), None)
    assert line is not None, f"{kind.__name__} is not drawn"
    assert str(kind.http_status) in line


def test_text_joins_cause_and_mend() -> None:
    """What a person reads has the cause first and the mend after it."""
    assert str(TidemillError("the lake is dry", mend="wait for rain")) == "the lake is dry; wait for rain"
    assert str(TidemillError("the lake is dry")) == "the lake is dry"


def test_a_declaration_error_says_where() -> None:
    """File, line and field come before the message."""
    error = DeclarationError("is empty", where="views.py:7", field="windows", mend='give one, such as "1h"')
    assert str(error) == 'views.py:7: windows: is empty; give one, such as "1h"'
    assert (error.where, error.field, error.mend) == ("views.py:7", "windows", 'give one, such as "1h"')
    assert DeclarationError("is empty", where="views.py:7", field=None, mend="").message == "views.py:7: is empty"


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The mend of an unknown name is the sorted list of what exists."""
    error = UnknownView("orgin", ["origin", "carrier"])
    assert str(error) == "unknown view 'orgin'; known: carrier, origin"
    assert error.http_status == 404
    assert isinstance(error, NotFound)
    assert UnknownView("x").mend == ""


def test_errors_carry_what_a_program_needs() -> None:
    """Reason codes, reply codes and positions are attributes, not text to parse."""
    assert InvalidEvent("no_key", "the event has no key").reason == "no_key"
    assert StoreError("WRONGTYPE Operation against a key").code == "WRONGTYPE"
    conflict = FenceConflict("origin_delays[3]", expected=10, found=7)
    assert (conflict.expected, conflict.found) == (10, 7)
    assert MissingExtra("fastapi", "http").mend == "run: pip install 'tidemill[http]'"


@pytest.mark.parametrize(
    ("package", "extra", "statement"),
    [
        ("hiredis", "store", "import tidemill.redis.link"),
        (
            "fastapi",
            "http",
            "from tidemill.runtime.health import HealthBoard; from tidemill.runtime.http import fastapi_app; fastapi_app(HealthBoard())",
        ),
    ],
)
def test_a_missing_package_names_its_extra(package: str, extra: str, statement: str) -> None:
    """Where only the base is installed, the error says what to install."""
    code = f"import sys; sys.modules[{package!r}] = None; {statement}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "shared"}, capture_output=True, text=True, check=False)
    assert f"MissingExtra: the package {package} is not installed; run: pip install 'tidemill[{extra}]'" in done.stderr


def test_a_model_without_versions_is_mended_as_its_declaration_says() -> None:
    """Who knows the declaration names the command that makes a version; who has only a name says which command shows it."""
    imports = "tidemill models import late FILE.onnx --contract CONTRACT.json"
    assert str(NotDeployed("late", imports)) == f"no version of model 'late' is deployed; run: {imports}"
    assert "`tidemill models list late`" in NoSuchVersion("late", "v1", []).mend
    assert NoSuchVersion("late", "v1", ["v2"]).mend == "choose one of: v2"
