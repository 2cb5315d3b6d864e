"""The console of all commands: as wide as the terminal; into a pipe or a file, as wide as the text, so that a line stays a line."""

from __future__ import annotations

import os

from rich.console import Console, ConsoleDimensions

_WIDE = 10_000


class CommandConsole(Console):
    """Standard output of a command. COLUMNS in the environment sets the width of all output, as it does for other programs."""

    @property
    def size(self) -> ConsoleDimensions:
        """Its width and height in characters."""
        found = super().size
        return found if self.is_terminal or os.environ.get("COLUMNS") else ConsoleDimensions(_WIDE, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


console = CommandConsole()
