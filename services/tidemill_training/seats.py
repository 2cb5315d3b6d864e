"""As what a new version serves: champion, alone, as every training deployed so far; or beside the champion, as a shadow or challenger."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import NamedTuple, get_args

from tidemill.declarations.project import Project
from tidemill.errors import DeploymentRefused, KafkaRefused, KafkaUnavailable
from tidemill.models.changes import StoredVersion, beside
from tidemill.operations.deploying import Action, Deploying
from tidemill.records import DeploymentRecord, Role
from tidemill.runtime.settings import KafkaSettings
from tidemill_training.app import Trained, deploy, not_announced

SHARE = 0.05


class NewSeat(NamedTuple):
    """A role, and a challenger's share of the requests."""

    role: Role = "champion"
    share: float = 0.0

    @property
    def said(self) -> str:
        """What was done with a version that has it."""
        return {"champion": "deployed", "shadow": "deployed as a shadow"}.get(
            self.role, f"deployed as a challenger, {self.share:.4g} of the requests"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--as`, `--share` and `--no-deploy`."""
    parser.add_argument(
        "--as", dest="role", choices=get_args(Role), default="champion", help="the role of the new version (default: champion)"
    )
    parser.add_argument(
        "--share", type=float, default=SHARE, help=f"a challenger's share of the requests, above 0 and at most 1 (default: {SHARE})"
    )
    parser.add_argument("--no-deploy", action="store_true", help="store and track, but do not deploy")


def seat_of(options: argparse.Namespace) -> NewSeat | None:
    """The seat that was asked for; None: the version is not deployed."""
    return None if options.no_deploy else NewSeat(options.role, options.share if options.role == "challenger" else 0.0)


def deployments_of(kafka: KafkaSettings, project: Project, offline_root: str, model: str) -> list[DeploymentRecord]:
    """All deployments of a model, oldest first. Raises KafkaUnavailable."""
    return asyncio.run(Deploying(kafka, project, offline_root).history()).get(model, [])


def check_seat(model: str, seat: NewSeat | None, history: Sequence[DeploymentRecord]) -> None:
    """Raises DeploymentRefused when a new version could not have the seat as things are: there is no champion, or no share is left."""
    if seat is None or seat.role == "champion":
        return
    if seat.role == "challenger" and not 0 < seat.share <= 1:
        raise DeploymentRefused(model, f"a challenger's share is above 0 and at most 1, not {seat.share:g}", "give 0.05 for 5 %")
    if not history:
        raise DeploymentRefused(
            model, f"no version of it serves, so none can be a {seat.role} beside it", "leave out --as for the first version"
        )
    beside(history[-1], StoredVersion(model, "", "", "", {}), seat.share or None, 0)


async def take_seat(project: Project, trained: Trained, kafka: KafkaSettings, offline_root: str, seat: NewSeat) -> None:
    """Announces the version in its role. Raises KafkaUnavailable, DeploymentRefused."""
    if seat.role == "champion":
        await deploy(project, trained, kafka)
        return
    manifest = trained.manifest
    action: Action = "shadow" if seat.role == "shadow" else "canary"
    try:
        await Deploying(kafka, project, offline_root).act(manifest.model, action, manifest.version, seat.share or None)
    except (KafkaRefused, KafkaUnavailable) as error:
        raise not_announced(manifest, error) from error
