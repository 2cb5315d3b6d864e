"""How the project under faults is declared, stage after stage."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Stage(msgspec.Struct, frozen=True):
    """`entities`, `places`: how often a view got another window, and a feature or one less; `graded`: measurements have a declared grade."""

    entities: int = 0
    places: int = 0
    graded: bool = False

    def after(self, *, both: bool) -> Stage:
        """The next stage: the view of places is another, with `both` the view of entities too; from the second stage on the event is extended."""
        return Stage(self.entities + both, self.places + 1, graded=self.places > 0)

    def write(self, project: Path) -> None:
        """Declare it in a project's folder."""
        draft = project / "stage.new"
        draft.write_bytes(msgspec.json.encode(self))
        draft.replace(project / "stage.json")
