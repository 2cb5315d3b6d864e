"""A power cut can leave the newest commit of a Delta table on a local disk half written; then the whole table cannot be read.

No data is lost: the records of that commit are still in Kafka. The table's writer moves the commit out of `_delta_log` and writes the
records again. Object stores store a file whole or not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tidemill.errors import TornTable
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

TRANSACTIONS = "tidemill.transactions"
"""Key in a commit's information: how many app transactions it carries. The information is the commit's first line."""

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")


def commits_folder(uri: str) -> Path | None:
    """The folder of a table's commits; None for a table in an object store."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path) / "_delta_log"


def flaw_of(content: bytes) -> str | None:
    """The reason why a commit is incomplete, or None when it seems complete.

    A commit is JSON lines; the first one has the number of app transactions, added and removed files that follow, and the operation.
    """
    if not content.strip(b"\0\n "):
        return "it is empty"
    try:
        actions = [msgspec.json.decode(line, type=dict[str, Any]) for line in content.split(b"\n")]
    except msgspec.DecodeError:
        return "its last line is cut short or blank"
    found = Counter(kind for action in actions for kind in action)
    lacking = [
        f"{found[kind]} of {count} {kind}" for kind, count in _announced(actions[0].get("commitInfo", {})).items() if found[kind] != count
    ]
    return f"it has {', '.join(lacking)}" if lacking else None


def _announced(info: dict[str, Any]) -> dict[str, int]:
    """How many actions of each kind a commit should have, as far as its first line says."""
    told = info.get("operationMetrics", {})
    counts = {
        "txn": info.get(TRANSACTIONS),
        "add": told.get("num_added_files", told.get("numFilesAdded")),
        "remove": told.get("num_removed_files", told.get("numFilesRemoved")),
        "metaData": 1 if info.get("operation") in ("CREATE TABLE", "ADD COLUMN", "SET TBLPROPERTIES") else None,
    }
    return {kind: int(count) for kind, count in counts.items() if count is not None}


def torn_commit(uri: str) -> tuple[Path, str] | None:
    """The newest commit of a table and its flaw, if it is half written and no checkpoint covers it; else None."""
    folder = commits_folder(uri)
    if folder is None or not folder.is_dir():
        return None
    names = [path.name for path in folder.iterdir()]
    commits = [int(match[1]) for name in names if (match := _COMMIT.fullmatch(name))]
    if not commits:
        return None
    newest = max(commits)
    if any(int(match[1]) >= newest for name in names if (match := _CHECKPOINT.fullmatch(name))):
        return None
    path = folder / f"{newest:020}.json"
    flaw = flaw_of(path.read_bytes())
    return None if flaw is None else (path, flaw)


def drop_torn_commit(uri: str) -> bool:
    """Move a half-written newest commit from `_delta_log` into the folder `_torn` beside it. Returns whether there was one.

    Only the table's writer may call this, before it writes. The data files of that commit stay, unreferenced.
    """
    found = torn_commit(uri)
    if found is None:
        return False
    path, flaw = found
    aside = path.parent.parent / "_torn"
    aside.mkdir(exist_ok=True)
    kept = aside / f"{path.name}.{path.stat().st_mtime_ns}"
    path.rename(kept)
    log.error("newest commit was half written and is taken out; its records are written again", commit=str(path), flaw=flaw, kept=str(kept))
    return True


def explain_torn(uri: str) -> None:
    """Raises TornTable when the newest commit is half written. For readers that could not open a table: it changes nothing."""
    try:
        found = torn_commit(uri)
    except OSError:
        return  # the caller's own error says why the table cannot be read
    if found is not None:
        raise TornTable(
            f"{found[0]} is half written ({found[1]})",
            mend="start the service that writes this table (tidemill_offline or tidemill_predlog): it takes the commit out and writes its records again",
        )
