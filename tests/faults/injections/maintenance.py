"""Compacts and checkpoints tables, one after the other, until killed.

python -m tests.faults.injections.maintenance TABLE...
"""

from __future__ import annotations

import itertools
import sys
from contextlib import suppress

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError


def main(uris: list[str]) -> None:
    """Never return; a table that another is faster with has its turn again later."""
    print("begun", flush=True)
    for uri in itertools.cycle(uris):
        with suppress(DeltaError, OSError):
            table = DeltaTable(uri)
            table.optimize.compact()
            table.create_checkpoint()
            table.vacuum(dry_run=False)


if __name__ == "__main__":
    main(sys.argv[1:])
