"""Every error that tidemill raises on purpose, with its HTTP status.

TidemillError                 500  root: catch this to catch all of them
├── SettingsError             500  an environment variable is missing or wrong
├── MissingExtra              500  a package of an extra is not installed
├── ProjectError              500  a project cannot be loaded
│   └── DeclarationError      500  a project's declaration is wrong
├── UnusableFile              500  a file of history cannot be loaded as it is
├── BadRequest                400  a caller sent something unusable
│   ├── InvalidEvent          422  an event cannot be used (carries a reason code)
│   ├── MissingInputs         422  a model refuses a request of which inputs cannot be known
│   ├── IdReused              409  another request already has this id
│   ├── BodyTooLarge          413  a request's body exceeds the limit
│   └── UnsupportedEncoding   415  a request's body is compressed in an unknown way
├── NotFound                  404
│   ├── UnknownModel          404
│   │   └── NotDeployed       404
│   ├── UnknownView           404
│   ├── UnknownFeature        404
│   ├── UnknownEvent          404
│   └── UnknownTable          404
├── Unavailable               503  a dependency is away: retry later
│   ├── StoreUnavailable      503  Redis
│   │   └── SlotUnavailable   503  one slot of a Redis Cluster; other slots may work
│   ├── KafkaUnavailable      503  Kafka
│   │   └── UnreadPartitions  503  declared partitions that no member of a consumer group reads
│   ├── OfflineUnavailable    503  the offline store
│   ├── RegistryUnavailable   503  the schema registry
│   └── Rebuilding            503  values in the online store are older than those served before
├── StoreError                500  Redis answered a command with an error
│   └── NoScript              500  Redis does not hold the script (nothing ran)
├── WorkerEnded               500  a worker ended although its service should run
├── CorruptState              500  a stored value fails its checksum
├── ArtifactError             500  a model artifact is missing, damaged, or made for other declarations
│   └── NoSuchVersion         404  no such version of a model is stored
├── OutOfMemory               500  a stage of a training needs more memory than there is
├── AbsentColumns             500  records of a view's log lack columns that the view folds now
├── BadDeployment             500  a deployment states versions, roles or shares that contradict each other
├── DeploymentRefused         409  a version cannot have the role that was asked for
│   └── DeploymentChanged     409  somebody else changed the deployment first
├── TornTable                 500  a table of the offline store is damaged or has other columns
│   └── DoubledRows           500  a table has more rows than the records that it mirrors
├── RecordTooLarge            413  a record exceeds the limit of its topic
├── KafkaRefused              500  a broker refused a batch for good
├── CatalogueChanged          500  somebody else changed the catalogue first
├── TopicMismatch             500  a topic exists with other partitions or another configuration
│   └── UnfilledLog           500  a view's records are in another log than the declared one
├── TopicRecreated            500  a topic no longer holds the records that a fence counts as applied
└── FenceConflict             409  a store is not at the position where a batch starts

A message says what is wrong; `mend` says what the reader can do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar


class TidemillError(Exception):
    """Root of the tree.

    `message` is the cause and `mend` the remedy, both plain text for a person; `str(error)` joins them.
    """

    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}; {self.mend}" if self.mend else self.message


class SettingsError(TidemillError):
    """An environment variable is missing or cannot be understood."""


class MissingExtra(TidemillError, ImportError):
    """A module needs packages that only an extra of tidemill installs. It is an ImportError too."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package} is not installed", mend=f"run: pip install 'tidemill[{extra}]'")


class ProjectError(TidemillError):
    """A project cannot be found, imported or used as a whole."""


class DeclarationError(ProjectError):
    """A project's declaration is wrong.

    `where` is `file:line` of the declaration; `field` is the argument at fault (None: the declaration as a whole).
    """

    def __init__(self, message: str, *, where: str, field: str | None, mend: str) -> None:
        at = f"{where}: {field}: " if field else f"{where}: "
        super().__init__(at + message, mend=mend)
        self.where = where
        self.field = field


class UnusableFile(TidemillError):
    """A file of history cannot be loaded as it is: what it is, its columns, or their types."""


class BadRequest(TidemillError):
    """A caller sent something that cannot be used."""

    http_status = 400


class InvalidEvent(BadRequest):
    """An event cannot be used. `reason` is a short stable code (a metric label and a field of the dead letter), `message` the detail."""

    http_status = 422

    def __init__(self, reason: str, message: str, *, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.reason = reason


class MissingInputs(BadRequest):
    """A model refuses a request of which inputs cannot be known. `degraded`: why, by input."""

    http_status = 422

    def __init__(self, model: str, degraded: Mapping[str, str]) -> None:
        said = ", ".join(f"{name} ({reason})" for name, reason in degraded.items())
        mend = f'ask again when they are known, or declare on_missing="predict" for model {model}'
        super().__init__(f"model {model} does not answer without these inputs: {said}", mend=mend)
        self.degraded = degraded


class IdReused(BadRequest):
    """A request has the id of another request. `differing`: the fields in which the two differ."""

    http_status = 409

    def __init__(self, id: str, differing: list[str]) -> None:
        super().__init__(
            f"another request already has the id {id!r}: {', '.join(differing)} differ",
            mend="repeat the first request unchanged, or choose another id",
        )
        self.differing = differing


class BodyTooLarge(BadRequest):
    """A request's body exceeds the limit of a service."""

    http_status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body exceeds the limit of {limit_bytes} bytes", mend="send fewer rows per request")


class UnsupportedEncoding(BadRequest):
    """A request's body is compressed in a way that is not known."""

    http_status = 415

    def __init__(self, coding: str, known: Iterable[str]) -> None:
        super().__init__(f"Content-Encoding {coding!r} is not taken", mend=f"use one of {', '.join(known)}, or none")


class NotFound(TidemillError):
    """A name is not known."""

    http_status = 404
    kind: ClassVar[str] = "name"

    def __init__(self, name: str, known: list[str] | None = None) -> None:
        mend = f"known: {', '.join(sorted(known))}" if known else ""
        super().__init__(f"unknown {self.kind} {name!r}", mend=mend)
        self.name = name


class UnknownModel(NotFound):
    """No such model is declared, or none of its versions is loaded."""

    kind = "model"


class NotDeployed(UnknownModel):
    """The model is declared, but no version of it was ever deployed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.message, self.mend = f"no version of model {name!r} is deployed", f"run: tidemill train {name}"


class UnknownView(NotFound):
    """No such feature view is declared."""

    kind = "view"


class UnknownFeature(NotFound):
    """No such feature exists in the view."""

    kind = "feature"


class UnknownEvent(NotFound):
    """No such event is declared."""

    kind = "event"


class UnknownTable(NotFound):
    """The offline store has no such table (yet)."""

    kind = "table"


class Unavailable(TidemillError):
    """A dependency is away. The request may or may not have had an effect; repeat it later."""

    http_status = 503


class StoreUnavailable(Unavailable):
    """Redis cannot be reached, is loading, is read-only or did not answer in time."""


class SlotUnavailable(StoreUnavailable):
    """The node that has a slot of a Redis Cluster cannot be reached, or the slot is moving to another node. Other slots may work."""


class KafkaUnavailable(Unavailable):
    """Kafka cannot be reached or did not become ready in time."""


class UnreadPartitions(KafkaUnavailable):
    """A project declares partitions that no member of the consumer group reads."""


class OfflineUnavailable(Unavailable):
    """The offline store cannot be read or written: no space, no rights, not reachable, or another writer is always faster."""


class RegistryUnavailable(Unavailable):
    """The schema registry cannot be reached, or does not answer as one."""


class Rebuilding(Unavailable):
    """Values of some views are not served, since the online store is being rebuilt. `views`: their names."""

    def __init__(self, views: Sequence[str]) -> None:
        super().__init__(
            f"rebuilding: the online store has not caught up yet for {', '.join(views)}",
            mend=f"retry later; if this lasts, see that feature computation runs (tidemill status), or run: tidemill rebuild {views[0]}",
        )
        self.views = list(views)


class StoreError(TidemillError):
    """Redis answered with an error. `code` is its first word (`WRONGTYPE`, `ERR`, `OOM` ...)."""

    def __init__(self, text: str, *, mend: str = "") -> None:
        super().__init__(f"Redis answered: {text}", mend=mend)
        self.code = text.partition(" ")[0]


class NoScript(StoreError):
    """Redis does not have the script with the given digest; nothing ran."""


class WorkerEnded(TidemillError):
    """A worker that should run for ever has ended without an error."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} ended by itself", mend="the supervisor starts the process again; the lines before this one say more")


class CorruptState(TidemillError):
    """A value in the online store is not the one that was written: cut short, altered, or in another format."""


class OutOfMemory(TidemillError):
    """A stage of a training needs more memory than there is. What earlier stages gave is kept."""


class ArtifactError(TidemillError):
    """A model artifact is missing or damaged, or was not made for the declarations of this project."""


class NoSuchVersion(ArtifactError):
    """No such version of a model is stored."""

    http_status = 404

    def __init__(self, model: str, version: str, there: list[str]) -> None:
        mend = f"choose one of: {', '.join(there)}" if there else f"run: tidemill train {model}"
        super().__init__(f"no version {version} of {model} is stored", mend=mend)


class AbsentColumns(TidemillError):
    """Records of a view's log were written before the view folded some of its columns. An absent column must not be folded as null."""

    def __init__(self, view: str, columns: Sequence[str], below: int) -> None:
        super().__init__(
            f"view {view!r}: records of its log below offset {below} lack {', '.join(columns)}: the view did not fold it at that time",
            mend="give the changed view another name, under which it is fed from now on; or remove the new columns from it",
        )


class BadDeployment(TidemillError):
    """A deployment states versions, roles or shares that contradict each other."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__(f"deployment of model {model!r}: {message}", mend="state each version once, and shares whose sum is at most 1")


class DeploymentRefused(TidemillError):
    """A version cannot have the role that was asked for."""

    http_status = 409

    def __init__(self, model: str, message: str, mend: str) -> None:
        super().__init__(f"model {model!r}: {message}", mend=mend)


class DeploymentChanged(DeploymentRefused):
    """Somebody else changed the deployment of a model between our look and our change; what was written last counts."""


class TornTable(TidemillError):
    """A table of the offline store is damaged, or does not have the columns that are written now."""


class DoubledRows(TornTable):
    """A table of the offline store has more rows than the records it mirrors: two programs merged its files at the same time."""

    def __init__(self, table: str, rows: int, records: int) -> None:
        super().__init__(
            f"table {table!r} has {rows:,} rows, but mirrors at most {records:,} records: a program merged its files while its writer did",
            mend="let only tidemill compact its tables; move this table away, and its writer makes it again from Kafka",
        )


class RecordTooLarge(TidemillError):
    """A record is larger than its topic accepts; nothing was sent. `size_bytes`: the size of a batch with this record alone."""

    http_status = 413

    def __init__(self, topic: str, partition: int, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"a record of {size_bytes} bytes for {topic}[{partition}] exceeds the limit of {limit_bytes} bytes",
            mend="send it to the dead letters, or raise max.message.bytes of the topic and the producer's max_request_size together",
        )
        self.size_bytes = size_bytes


class KafkaRefused(TidemillError):
    """A broker refused a batch for good; it was not written.

    Its producer can no longer write to that partition, since its sequence numbers have a gap: stop it and start a new one.
    """


class CatalogueChanged(TidemillError):
    """Somebody else changed the catalogue first. Nothing was changed here."""


class TopicMismatch(TidemillError):
    """A topic exists, but not with the partition count or configuration that the system needs."""


class UnfilledLog(TopicMismatch):
    """The records of some views are in another log than the declared one. `views`: view -> (the log in use, the declared log)."""

    def __init__(self, views: Mapping[str, tuple[str, str]]) -> None:
        told = [f"view {view!r} is declared as {declared}, but its records are in {used}" for view, (used, declared) in views.items()]
        super().__init__(
            "; ".join(told), mend=f"run: {' && '.join(f'tidemill repartition {view}' for view in views)}, or declare the old count"
        )
        self.views = dict(views)


class TopicRecreated(TidemillError):
    """A topic does not hold the records that a fence counts as applied: it was truncated or created again, or retention removed them."""


class FenceConflict(TidemillError):
    """A batch does not start at the position that the store expects. `expected`: the batch's start; `found`: the store's (None: none)."""

    http_status = 409

    def __init__(self, where: str, *, expected: int, found: int | None) -> None:
        super().__init__(f"{where} expects position {found}, the batch starts at {expected}", mend="rewind to the store's position")
        self.expected = expected
        self.found = found
