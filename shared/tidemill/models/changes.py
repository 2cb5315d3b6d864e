"""What a person does with the versions of a model: deploy, shadow, canary, promote, roll back, retire. Pure.

Each function makes the next deployment of a model from the ones before. A deployment states all versions that serve, so nothing else has to
be remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from tidemill.errors import DeploymentRefused
from tidemill.records import DeploymentRecord, OtherVersion


class StoredVersion(NamedTuple):
    """A version in the offline store: its folder, and the SHA-256 of its manifest. `metrics`: of its training."""

    model: str
    version: str
    artifact: str
    sha256: str
    metrics: dict[str, float]


def deploy(stored: StoredVersion, at_ms: int) -> DeploymentRecord:
    """The version alone, as champion."""
    return DeploymentRecord(stored.model, stored.version, stored.artifact, stored.sha256, at_ms, stored.metrics)


def beside(
    now: DeploymentRecord | None, stored: StoredVersion, share: float | None, at_ms: int, instead: str | None = None
) -> DeploymentRecord:
    """The version beside the champion: a challenger with a share of the requests, or a shadow (`share`: None). The others stay, but for the one in whose
    place it comes (`instead`).

    Raises DeploymentRefused: there is no champion, or it is the version itself; or the shares exceed 1.
    """
    if now is None:
        raise DeploymentRefused(stored.model, "no version of it serves", f"run: tidemill models deploy {stored.model}@{stored.version}")
    if now.version == stored.version:
        raise DeploymentRefused(stored.model, f"{stored.version} is the champion", "promote another version first")
    kept = _without(_without(now.others, stored.version), instead or stored.version)
    given = sum(other.share for other in kept) + (share or 0.0)
    if given > 1:
        taken = ", ".join(f"{other.version} {other.share:g}" for other in kept if other.share)
        raise DeploymentRefused(stored.model, f"the shares of the challengers would add up to {given:g} ({taken})", "give less")
    seat = OtherVersion(stored.version, "shadow" if share is None else "challenger", stored.artifact, stored.sha256, share or 0.0)
    return replace(now, others=[*kept, seat], deployed=at_ms, rolled_back=False)


def promote(now: DeploymentRecord | None, stored: StoredVersion, at_ms: int, *, keep: bool = False) -> DeploymentRecord:
    """The version as champion in place of the one before, which leaves, or is a shadow from now on (`keep`). The others stay.

    Raises DeploymentRefused: it is the champion.
    """
    if now is None:
        return deploy(stored, at_ms)
    if now.version == stored.version:
        raise DeploymentRefused(stored.model, f"{stored.version} is the champion already", "nothing to do")
    before = [OtherVersion(now.version, "shadow", now.artifact, now.sha256)] if keep else []
    return replace(deploy(stored, at_ms), others=[*_without(now.others, stored.version), *before])


def roll_back(history: Sequence[DeploymentRecord], at_ms: int) -> DeploymentRecord:
    """The champion before the one of now, in its place. The others stay. `history`: all deployments of the model, in order.

    A rollback is not undone by another one: that goes one champion further back. A version that is promoted a second time is a champion like
    any other: before it came the one that it replaced. Raises DeploymentRefused: there is none before.
    """
    champions: list[DeploymentRecord] = []
    for record in history:
        if champions and champions[-1].version == record.version:
            continue
        if record.rolled_back and len(champions) > 1:
            champions.pop()
        else:
            champions.append(record)
    if len(champions) < 2:
        model = history[-1].model if history else "?"
        raise DeploymentRefused(model, "no champion came before", "see: tidemill models list")
    before = champions[-2]
    return replace(before, others=_without(history[-1].others, before.version), deployed=at_ms, rolled_back=True)


def retire(now: DeploymentRecord | None, model: str, version: str, at_ms: int) -> DeploymentRecord:
    """Without a challenger or shadow, whose share the champion takes. Raises DeploymentRefused: it is the champion, or does not serve."""
    seated = [] if now is None else [now.version, *(other.version for other in now.others)]
    if now is None or version not in seated:
        raise DeploymentRefused(model, f"{version} does not serve; these do: {', '.join(seated) or 'none'}", "nothing to do")
    if version == now.version:
        raise DeploymentRefused(model, f"{version} is the champion", "promote another version, or roll back, first")
    return replace(now, others=_without(now.others, version), deployed=at_ms, rolled_back=False)


def _without(others: Sequence[OtherVersion], version: str) -> list[OtherVersion]:
    return [other for other in others if other.version != version]
