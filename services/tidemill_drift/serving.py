"""Which versions serve, by the newest deployment of each model: a version that was replaced is not judged any more."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.records import DeploymentRecord


class Serving:
    """Follows deployments. `changed` is set by each, and cleared by who acts on it."""

    def __init__(self) -> None:
        self._newest: dict[str, DeploymentRecord] = {}
        self.changed = False

    def deploy(self, records: Iterable[DeploymentRecord]) -> None:
        """Takes deployments, in order."""
        for record in records:
            self._newest[record.model] = record
            self.changed = True

    def gone(self, version: tuple[str, str]) -> str:
        """Why a version is not judged any more; empty while it serves, and for a model that was never deployed."""
        deployed = self._newest.get(version[0])
        if deployed is None or version[1] in (deployed.version, *(other.version for other in deployed.others)):
            return ""
        return f"superseded by {deployed.version}"
