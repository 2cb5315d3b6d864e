"""Who serves, by the newest deployment, and giving versions roles."""

from __future__ import annotations

import contextlib

from tidemill.errors import DeploymentRefused
from tidemill.operations.deploying import Action, Deploying
from tidemill.records import Role
from tidemill_retraining.history import OpenRun
from tidemill_retraining.logs import Logs


class Seating:
    """The roles of versions, as far as the logs were read."""

    def __init__(self, deploying: Deploying, logs: Logs) -> None:
        self._deploying, self._logs = deploying, logs

    def champion(self, model: str) -> str:
        """The version that answers; empty without one."""
        found = self._logs.deployments.get(model)
        return "" if found is None else found.version

    def shadow(self, model: str) -> str:
        """The version that is asked beside the champion; empty without one."""
        found = self._logs.deployments.get(model)
        return next((item.version for item in found.versions() if item.role == "shadow"), "") if found else ""

    def role(self, model: str, version: str) -> tuple[Role | None, float]:
        """The role of a version, and a challenger's share."""
        found = self._logs.deployments.get(model)
        for item in found.versions() if found else ():
            if item.version == version:
                return item.role, item.share if item.role == "challenger" else 0.0
        return None, 0.0

    def elsewhere(self, open_run: OpenRun) -> str:
        """What somebody did meanwhile that ends the run; empty: nothing."""
        champion = self.champion(open_run.model)
        if champion not in (open_run.champion, open_run.version):
            return f"somebody made {champion} the champion"
        if open_run.step == "promoted":
            return f"{champion} is the champion again" if champion == open_run.champion else ""
        return "" if self.role(open_run.model, open_run.version)[0] else "somebody took it away"

    async def act(
        self, model: str, action: Action, version: str | None = None, share: float | None = None, *, instead: str | None = None
    ) -> None:
        """As the command does it; a champion that is replaced stays as a shadow, to measure the new one by. Raises what `Deploying.act` raises."""
        await self._deploying.act(model, action, version, share, instead=instead, keep=action == "promote")

    async def retire(self, model: str, version: str) -> None:
        """Takes a version away that is a challenger or a shadow."""
        if self.role(model, version)[0] in ("shadow", "challenger"):
            with contextlib.suppress(DeploymentRefused):
                await self._deploying.act(model, "retire", version)
