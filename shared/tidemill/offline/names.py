"""Names of the offline store's tables."""

from __future__ import annotations

from tidemill.names import LogName


def view_folder(log: LogName) -> str:
    """Name of the offline table that mirrors a view's topic."""
    return f"views/{log}"
