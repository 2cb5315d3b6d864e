"""Compacts and checkpoints tables, one after the other, until killed: a second writer, as delta-rs itself doubles rows when two merge the same files.

python -m tests.faults.injections.maintenance TABLE...
"""

from __future__ import annotations

import itertools
import sys
from contextlib import suppress

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from tidemill.errors import TidemillError
from tidemill.offline.delta import CountedTable


def main(uris: list[str]) -> None:
    """Never return; a table that another is faster with has its turn again later."""
    print("begun", flush=True)
    for uri in itertools.cycle(uris):
        with suppress(TidemillError, DeltaError, OSError):
            CountedTable(uri, pa.schema([]), description="").compact()
            table = DeltaTable(uri)
            table.create_checkpoint()
            table.vacuum(dry_run=False)


if __name__ == "__main__":
    main(sys.argv[1:])
