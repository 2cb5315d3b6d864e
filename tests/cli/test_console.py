"""The width of what commands print: that of the terminal, or that of the text."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from tidemill.cli.console import CommandConsole

LONG = "one two three " * 40


def printed(*, terminal: bool) -> list[str]:
    """The lines that a long text and a table with a long cell become."""
    console = CommandConsole(file=io.StringIO(), force_terminal=terminal, color_system=None)
    console.print(LONG)
    table = Table("name", "value")
    table.add_row("a", LONG)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_stays_a_line_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is broken or cut for whoever reads lines: `grep` finds what it looks for."""
    monkeypatch.delenv("COLUMNS", raising=False)
    text, *table = printed(terminal=False)
    assert text == LONG.rstrip() or text == LONG
    assert sum(LONG.rstrip() in line for line in table) == 1


def test_columns_and_terminals_set_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal has its own width, and COLUMNS holds for pipes too."""
    monkeypatch.setenv("COLUMNS", "60")
    for terminal in (False, True):
        assert max(map(len, printed(terminal=terminal))) <= 60


def test_a_command_into_a_pipe(tmp_path: os.PathLike[str]) -> None:
    """`tidemill check` of a project with a long list of features prints each list as one line, without blanks at its end."""
    names = [f"a_feature_with_a_long_name_{number}" for number in range(9)]
    features = ", ".join(f'count(name="{name}")' for name in names)
    with open(os.path.join(tmp_path, "project.py"), "w") as file:
        file.write(
            "from tidemill import Event, FeatureView, count\n"
            'e = Event("e", {"at": int, "who": str}, time="at")\n'
            f'v = FeatureView("v", e, "who", [{features}])\n'
        )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-c", "from tidemill.cli import main; main()", "--project", os.fspath(tmp_path), "check"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert "    " + ", ".join(names) in lines
    assert lines == [line.rstrip() for line in lines]
