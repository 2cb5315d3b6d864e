"""What a person sees of a training."""

from __future__ import annotations

import io

from rich.console import Console

from tidemill_training.bars import StageBars


def seen(*, terminal: bool) -> str:
    """All that is written by a note between two states of two bars."""
    file = io.StringIO()
    with StageBars(Console(file=file, force_terminal=terminal, width=80, color_system=None)) as bars:
        bars.watch("stages", 3, 12)
        bars.watch("trials", 1, 30)
        bars.note("trial 1 of 30: [x] 5")
        bars.watch("trials", 30, 30)
        bars.watch("stages", 12, 12)
    return file.getvalue()


def test_a_terminal_has_bars() -> None:
    """Each with how much of how much is done; a note stays above them, as it is."""
    text = seen(terminal=True)
    assert "12/12" in text
    assert "30/30" in text
    assert "trial 1 of 30: [x] 5" in text


def test_a_pipe_has_lines_alone() -> None:
    """What other programs read is the notes, each a line."""
    assert seen(terminal=False) == "trial 1 of 30: [x] 5\n"
