"""What a training or an import read and made, as OpenLineage events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from tidemill.declarations import Model
from tidemill.training.lineage_events import JobStory, archived, told, version_of, views_of
from tidemill_training.app import Trained
from tidemill_training.logged import beside_version

Finished = Callable[[Trained], None]


@contextmanager
def story_of(
    job: Literal["train", "import"], project: str, model: Model, offline_root: str, note: Callable[[str], None]
) -> Iterator[Finished]:
    """Tells the begin and the end of a run. Gives a function that adds the version that was made, and the state of the archive that it was made
    from, which is recorded beside it."""
    story = JobStory(project, f"{job}.{model.name}", "TRAINING" if job == "train" else "IMPORT")
    story.reads(*views_of(project, model.views))

    def finished(trained: Trained) -> None:
        manifest = trained.manifest
        story.made(version_of(project, manifest.model, manifest.version))
        if (data := beside_version(offline_root, manifest).data) is not None:
            story.reads(*archived(offline_root, data.archive))

    with told(story, note):
        yield finished
