"""Writes the purchases of an online shop as a CSV file: `python examples/shop/history.py history.csv`.

They are the 69,659 purchases that 23,570 first customers of CDNOW, a shop for music, made from January 1997 to June 1998; the package
`lifetimes` brings them. All days are moved by one number of days, so that the last purchase was yesterday.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

LAST_DAY = date(1998, 6, 30)


def purchases(today: date) -> Iterator[tuple[str, date, str, int, str]]:
    """(order, day, customer, CDs, dollars) of each purchase, customer by customer."""
    spec = find_spec("lifetimes")
    if spec is None or spec.origin is None:
        sys.exit("the package with the data is missing: pip install lifetimes")
    moved = today - timedelta(days=1) - LAST_DAY
    table = Path(spec.origin).parent / "datasets" / "CDNOW_master.txt"
    for number, line in enumerate(table.read_text().splitlines()[1:], 1):
        customer, day, cds, dollars = line.split()
        yield f"o{number}", date.fromisoformat(day) + moved, f"c{int(customer)}", int(cds), dollars


def main(path: str) -> None:
    """Writes the file."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order", "day", "customer", "cds", "dollars"])
        writer.writerows(purchases(date.today()))


if __name__ == "__main__":
    main(*sys.argv[1:])
