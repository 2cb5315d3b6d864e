"""What a version says of the line of snapshots that it belongs to."""

from __future__ import annotations

import msgspec


class LearnedOnline(msgspec.Struct, frozen=True):
    """Of a version that learned row by row, and of its line: the version that was trained, and the snapshots of what was learned after it. `line`: the name of the
    trained one; `learned`: outcomes since; `left_out`: outcomes of this time that could not be learned; `applied`: the next offset of the topic of results."""

    line: str
    learned: int = 0
    left_out: int = 0
    applied: int = 0
