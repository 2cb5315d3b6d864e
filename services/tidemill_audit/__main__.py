"""The continuous audit as a process: python -m tidemill_audit."""

from __future__ import annotations

import asyncio
import sys

from tidemill.runtime.entry import service_main
from tidemill_audit.app import run
from tidemill_audit.settings import AuditSettings


def main() -> None:
    """Compare until SIGTERM."""
    asyncio.run(run(AuditSettings.load()))


if __name__ == "__main__":
    sys.exit(service_main("audit", main))
