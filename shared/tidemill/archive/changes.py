"""Lines of files that are changes of a database's rows, as Debezium writes them: the same events as from its topic."""

from __future__ import annotations

import msgspec

from tidemill.declarations import Event
from tidemill.records import DECODE_ERRORS
from tidemill.routing.debezium import ChangedRow, change_of
from tidemill.routing.refusals import PassedOver

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_AROUND = {"before", "after", "source"}


def change_in(line: bytes, event: Event) -> ChangedRow | None:
    """The event of a line that is a change; None for any other line. Raises PassedOver for a change that is no event, Refused."""
    if event.envelope is None:
        return None
    if line.strip() == b"null" and event.empty == "pass":
        raise PassedOver("empty")
    try:
        members = _OBJECT.decode(line)
        if "schema" in members and bytes(members.get("payload", b"")).startswith(b"{"):
            return change_of(line, event.deletes)
    except DECODE_ERRORS:
        return None  # who reads the line as a row says what is wrong with it
    return change_of(line, event.deletes) if "op" in members and not _AROUND.isdisjoint(members) else None
