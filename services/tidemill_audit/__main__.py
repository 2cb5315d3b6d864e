"""The continuous audit as a process: python -m tidemill_audit."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_audit.app import build
from tidemill_audit.settings import AuditSettings


def main() -> int:
    """Compare until SIGTERM; returns the exit code."""
    return run_service("audit", AuditSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
