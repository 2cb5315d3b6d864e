"""OpenLineage events: what a training, an import or a scoring read and made, told to whatever the standard settings name.

`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `openlineage.yml` and the other settings are those of the client `openlineage-python`. A thread tells,
so a receiver that is away holds nobody up: what it has not taken some seconds after the end is given up, and said.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tidemill.archive.columns import event_folder
from tidemill.declarations import FeatureView
from tidemill.errors import TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.training.stages.data import ArchiveState

CLOSE_SECONDS = 5.0
PRODUCER = "urn:tidemill"
_FILES = (Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml"))

Kind = Literal["START", "COMPLETE", "FAIL", "ABORT"]
Note = Callable[[str], None]


class DatasetName(NamedTuple):
    """A data set as OpenLineage names it, and its version."""

    namespace: str
    name: str
    version: str = ""


class RunMoment(NamedTuple):
    """A moment of a run. `error`: why it failed."""

    kind: Kind
    at: datetime
    inputs: list[DatasetName]
    outputs: list[DatasetName]
    error: str = ""


class JobStory:
    """What a job has read and made so far."""

    def __init__(self, project: str, job: str, job_type: str) -> None:
        self.project, self.job, self.job_type = project, job, job_type
        self.inputs, self.outputs = list[DatasetName](), list[DatasetName]()

    def reads(self, *named: DatasetName) -> None:
        """Adds what was read; a data set that is there already gets the version."""
        kept = {(one.namespace, one.name): one for one in (*self.inputs, *named)}
        self.inputs = list(kept.values())

    def made(self, *named: DatasetName) -> None:
        """Adds what was made."""
        self.outputs += named

    def event(self, kind: Kind, error: str = "") -> RunMoment:
        """What can be told now."""
        return RunMoment(kind, datetime.now(UTC), list(self.inputs), list(self.outputs), error)


def views_of(project: str, views: Iterable[FeatureView]) -> list[DatasetName]:
    """Views, each in the version of its definition."""
    return [DatasetName(f"tidemill://{project}", f"views/{view.plain_name}", ViewKernel(view).definition) for view in views]


def version_of(project: str, model: str, version: str) -> DatasetName:
    """A version of a model."""
    return DatasetName(f"tidemill://{project}", f"models/{model}", version)


def archived(offline_root: str, archive: Mapping[str, ArchiveState]) -> list[DatasetName]:
    """The tables of events that were read, each in its version."""
    return [_stored(offline_root, event_folder(name), str(state.version)) for name, state in archive.items() if state.version is not None]


def file_of(path: Path) -> DatasetName:
    """A file of this machine."""
    return DatasetName("file", str(path.absolute()))


def _stored(offline_root: str, path: str, version: str) -> DatasetName:
    if "://" not in offline_root:
        return DatasetName("file", f"{Path(offline_root).absolute()}/{path}", version)
    scheme, _, rest = offline_root.partition("://")
    bucket, _, folder = rest.strip("/").partition("/")
    return DatasetName(f"{scheme}://{bucket}", f"{folder}/{path}".strip("/"), version)


def is_set() -> bool:
    """Whether anybody wants the events."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    names = [name for name, value in os.environ.items() if name.startswith("OPENLINEAGE_") and value]
    return bool(set(names) - {"OPENLINEAGE_DISABLED"}) or any(file.expanduser().is_file() for file in _FILES)


@contextmanager
def told(story: JobStory, note: Note) -> Iterator[JobStory]:
    """Tells the begin of a job and its end: that it is complete, that it failed, or that it was ended. Nothing of it raises; `note` gets what
    could not be told."""
    if not is_set():
        yield story
        return
    teller = _Teller(story, note)
    teller.tell(story.event("START"))
    try:
        yield story
    except Exception as error:
        teller.end(story.event("FAIL", error.message if isinstance(error, TidemillError) else repr(error)))
        raise
    except BaseException:
        teller.end(story.event("ABORT"))
        raise
    teller.end(story.event("COMPLETE"))


class _Teller:
    """A thread that gives events to the client, in order. It is a daemon: a receiver that hangs does not keep the process."""

    def __init__(self, story: JobStory, note: Note) -> None:
        self._story, self._note, self._failed = story, note, ""
        self._waiting = queue.SimpleQueue[RunMoment | None]()
        self._thread = threading.Thread(target=self._run, name="openlineage", daemon=True)
        self._thread.start()

    def tell(self, event: RunMoment) -> None:
        """Puts an event into the line."""
        self._waiting.put(event)

    def end(self, event: RunMoment) -> None:
        """Tells the last one, and waits a little until all are taken."""
        self._waiting.put(event)
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._failed = "the receiver did not take them in time"
        if self._failed:
            self._note(f"OpenLineage events of {self._story.job} were not told: {self._failed}")

    def _run(self) -> None:
        try:
            from openlineage.client import OpenLineageClient  # noqa: PLC0415 - slow, and only where it is wanted
            from openlineage.client.uuid import generate_new_uuid  # noqa: PLC0415

            client, run = OpenLineageClient(), str(generate_new_uuid())
            while (event := self._waiting.get()) is not None:
                self._emit(client, run, event)
            client.close(CLOSE_SECONDS)
        except ImportError:
            self._failed = "the package openlineage-python is not installed; run: pip install 'tidemill[openlineage]'"
        except Exception as error:  # of the client, its configuration or its transports: they have no common root
            self._failed = _line(error)

    def _emit(self, client: Any, run: str, event: RunMoment) -> None:
        try:
            client.emit(run_event(self._story, run, event))
        except Exception as error:  # as above; the next event is tried all the same
            self._failed = _line(error)


def run_event(story: JobStory, run: str, event: RunMoment) -> Any:
    """An event as the client takes it."""
    from openlineage.client import event_v2 as events  # noqa: PLC0415 - as the client
    from openlineage.client import facet_v2 as facets  # noqa: PLC0415

    def facets_of(named: DatasetName) -> dict[str, Any]:
        return {"version": facets.dataset_version_dataset.DatasetVersionDatasetFacet(named.version)} if named.version else {}

    failed: dict[str, Any] = {"errorMessage": facets.error_message_run.ErrorMessageRunFacet(event.error, "python")} if event.error else {}
    job_type = facets.job_type_job.JobTypeJobFacet(processingType="BATCH", integration="TIDEMILL", jobType=story.job_type)
    return events.RunEvent(
        eventTime=event.at.isoformat(),
        eventType=events.RunState[event.kind],
        run=events.Run(run, failed),
        job=events.Job(f"tidemill://{story.project}", story.job, {"jobType": job_type}),
        inputs=[events.InputDataset(one.namespace, one.name, facets=facets_of(one)) for one in event.inputs],
        outputs=[events.OutputDataset(one.namespace, one.name, facets=facets_of(one)) for one in event.outputs],
        producer=PRODUCER,
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or repr(error)
