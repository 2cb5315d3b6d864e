"""`python -m tidemill_training.aliases MODEL`: MLflow's aliases of a model become what its deployments say.

`champion` is the version that answers; `challenger` the newest one beside it, before a shadow. The deployments are the record: whatever MLflow
misses while it is away is made good by the next command that changes roles, or the next training.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError
from tidemill.records import DeploymentRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill_training.seats import deployments_of
from tidemill_training.settings import TrainingSettings
from tidemill_training.tracking import TAG, Tracker, record_earlier

ALIASES = ("champion", "challenger")
_SECONDS, _REPEATS = "3", "1"  # somebody waits for the command
_ROUNDS = 5


class Aim(NamedTuple):
    """The versions that carry the aliases. `challenger`: None when none serves beside the champion; `served`: all that ever served."""

    champion: str
    challenger: str | None
    served: frozenset[str]

    def version(self, alias: str, now: str | None) -> str | None:
        """Who carries an alias, if `now` does; None for nobody. A version that was never deployed stays the challenger meanwhile."""
        if alias == "champion":
            return self.champion
        return self.challenger or (None if now in self.served else now)


def wanted(history: Sequence[DeploymentRecord]) -> Aim:
    """By all deployments of a model, of which there is one or more."""
    last = history[-1]
    beside = sorted(last.others, key=lambda other: other.role == "challenger")  # stable: the newest of a role comes last
    served = frozenset(item.version for record in history for item in record.versions())
    return Aim(last.version, beside[-1].version if beside else None, served)


def move(client: Any, model: str, aim: Aim) -> list[str]:
    """Moves the aliases by a client of MLflow's, and says what was done. A version that MLflow does not have is said, and its alias stays."""
    registered = {found.tags.get(TAG): str(found.version) for found in client.search_model_versions(f"name='{model}'")}
    named = {number: name for name, number in registered.items()}
    now = dict(client.get_registered_model(model).aliases) if registered else {}
    done = []
    for alias in ALIASES:
        holder = named.get(str(now[alias])) if alias in now else None
        version = aim.version(alias, holder)
        if version == holder:
            continue
        if version is None:
            client.delete_registered_model_alias(model, alias)
            done.append(f"{model} has no {alias} in MLflow now")
        elif version in registered:
            client.set_registered_model_alias(model, alias, registered[version])
            done.append(f"{model} {version} is the {alias} in MLflow now")
        else:
            done.append(f"{model} {version} is not in MLflow, so it cannot be the {alias} there")
    return done


def align(offline_root: str, model: str, read: Callable[[], Sequence[DeploymentRecord]], note: Callable[[str], None]) -> bool:
    """Moves the aliases of a model in MLflow to what its deployments say, after versions that MLflow missed are recorded. `read` gives the
    deployments, again until they stay the same meanwhile, so the last of several commands leaves what counts.

    Returns False when MLflow is away; `note` gets the reason. Without a tracker nothing is done. Raises what `read` raises.
    """
    if not Tracker.is_set(offline_root):
        return True
    history = read()
    for _ in range(_ROUNDS if history else 0):
        try:
            tracker = Tracker.for_store(offline_root)
            record_earlier(tracker, offline_root, note)
            aim = wanted(history)
            for line in tracker.asked(lambda client, aim=aim: move(client, model, aim)):  # type: ignore[misc]
                note(line)
        except (TidemillError, OSError) as error:
            note(f"{model}: what serves is as it was asked for, but MLflow's aliases are not: {error}")
            return False
        before, history = history, read()
        if history == before:
            break
    return True


def align_by_topic(kafka: KafkaSettings, project: Project, offline_root: str, model: str, note: Callable[[str], None]) -> bool:
    """The same, with the deployments of a project. It raises nothing: what serves does not hang on it."""
    try:
        return align(offline_root, model, lambda: deployments_of(kafka, project, offline_root, model), note)
    except TidemillError as error:
        note(f"MLflow's aliases of {model} are not moved, since the deployments cannot be read: {error}")
        return False


def main() -> int:
    """Moves the aliases of one model. Returns 0 when MLflow has them, else 1."""
    parser = argparse.ArgumentParser(prog="tidemill_training.aliases", description="Move MLflow's aliases to what the deployments say.")
    parser.add_argument("model", help="a model of the project")
    model = parser.parse_args().model
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _REPEATS)
    try:
        settings = TrainingSettings.load()
        project = load_project(settings.project.project)
        return 0 if align_by_topic(settings.kafka, project, settings.offline.root, model, print) else 1
    except TidemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
