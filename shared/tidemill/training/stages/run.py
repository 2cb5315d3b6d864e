"""One run of training: it does each stage once, keeps what the stage gave, and goes on where an earlier process was ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import msgspec

from tidemill.clock import now_ms
from tidemill.errors import OutOfMemory, TidemillError, Unavailable
from tidemill.training.stages.files import RunFiles, digest_of, folders_of, runs_root
from tidemill.training.stages.forms import Form
from tidemill.training.stages.keys import code_digest, key_of, packages
from tidemill.training.stages.records import STAGES, AskedRun, Began, EndRecord, RunRecord, StageRecord, run_name

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
Note = Callable[[str], None]
Watch = Callable[[str, int, int], None]
"""Gets what is being done, and how much of how much is done."""

GOES_ON_MS = 24 * 3_600_000
_RUN, _BEGAN, _ENDED = "run.json", "began.json", "ended.json"
_ALL = "stages"
_LARGE = (".pickle", ".msgpack")
_NO_MEMORY = ("bad_alloc", "bad allocation", "cannot allocate memory", "unable to allocate")
_AFTER_STORING = STAGES[STAGES.index("store") :]


class StageOutput(NamedTuple, Generic[T]):
    """What a stage gave, and the digest by which later stages know it."""

    value: T
    digest: str


class Run:
    """A run that this process holds. As a context manager it writes down how it ended; a run that was ended from outside, found no memory, or
    could not announce its version, is left to be gone on with."""

    def __init__(self, files: RunFiles, record: RunRecord, note: Note) -> None:
        self._files, self.record, self._note = files, record, note
        self.watch: Watch = lambda _what, _done, _total: None
        self._stage = ""

    @classmethod
    def begin(
        cls, offline_root: str, model: str, spec: str, asked: AskedRun, note: Note, *, new: bool = False, created_ms: int | None = None
    ) -> Self:
        """Goes on with the newest run of this model that did not end, if it was asked for the same, by the same code, within a day and
        no process holds it; else begins one. `new`: begins one in any case; `created_ms`: when it begins (None: now); only a run of
        that moment is gone on with."""
        code, only = code_digest(spec), None if created_ms is None else run_name(created_ms)
        if not new and (found := _unfinished(offline_root, model, asked, code, note, only)):
            files, record = found
            run = cls(files, record, note)
            note(f"going on with run {record.run} of {model}{run._ended_in()}; --new begins another")
            return run
        created = now_ms() if created_ms is None else created_ms
        while not (files := RunFiles(runs_root(offline_root) / model / run_name(created))).make(_RUN):
            created += 1
        record = RunRecord(
            model, run_name(created), created, now_ms(), created if asked.until_ms is None else asked.until_ms, asked, code, packages()
        )
        files.write(_RUN, _json(record))
        return cls(files, record, note)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if isinstance(error, TidemillError) and not isinstance(error, Unavailable | OutOfMemory) and self._stage not in _AFTER_STORING:
                self._end("refused", str(error))
        finally:
            self._files.release()

    def stage(
        self,
        name: str,
        form: Form[T],
        make: Callable[[], T],
        say: Callable[[T], str],
        inputs: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> StageOutput[T]:
        """The output of a stage: kept, if its inputs (by digest), its parameters, the code and the packages are the same, else made now.

        `say`: the result in words. Raises what `make` raises, and OutOfMemory in the place of a MemoryError.
        """
        self._stage, given = name, dict(inputs or {})
        self.watch(_ALL, STAGES.index(name), len(STAGES))
        known = {label: repr(value) for label, value in parameters.items()}
        key = key_of(name, given, known, self.record.code, self.record.packages)
        if (found := self._kept(name, key, form)) is not None:
            return found
        began, started = now_ms(), time.monotonic()
        self._files.write(_BEGAN, _json(Began(name, began)))
        try:
            value = make()
            content = form.write(value)
        except Exception as error:
            if not lacks_memory(error):
                raise
            raise OutOfMemory(
                f"training of {self.record.model!r}: not enough memory in stage {name!r}",
                mend="run the same command again where there is more memory, and it goes on with this stage; or train on fewer rows (--labels FILE), inputs or trees",
            ) from error
        output = None if content is None else f"{name}.{form.ending}"
        digest = key if content is None else digest_of(content)
        if output and content is not None:
            self._files.write(output, content)
        seconds = round(time.monotonic() - started, 3)
        self._files.write(f"{name}.record.json", _json(StageRecord(name, key, given, known, output, digest, began, seconds, say(value))))
        self._files.remove(_BEGAN)
        return StageOutput(value, digest)

    def trained(self, said: str) -> None:
        """The run is over, and made a version; what only a further stage would need is deleted."""
        self._end("trained", said)
        self.watch(_ALL, len(STAGES), len(STAGES))

    @property
    def work(self) -> RunFiles:
        """The files of the run, for a stage that keeps parts of its own work."""
        return self._files

    def _kept(self, name: str, key: str, form: Form[T]) -> StageOutput[T] | None:
        record = _read(self._files, f"{name}.record.json", StageRecord)
        if record is None or record.key != key or record.output is None:
            return None
        content = self._files.read(record.output)
        if content is None or digest_of(content) != record.digest:
            return None
        self._note(f"stage {name} was done: {record.said}")
        return StageOutput(form.read(content), record.digest)

    def _end(self, result: Any, said: str) -> None:
        self._files.write(_ENDED, _json(EndRecord(result, said, now_ms())))
        drop_large(self._files)

    def _ended_in(self) -> str:
        began = _read(self._files, _BEGAN, Began)
        return f", which was ended in stage {began.stage!r}" if began else ""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that there is no memory. Libraries in C++ say so in words."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def drop_large(files: RunFiles) -> None:
    """Deletes what only a further stage would need."""
    for path in files.folder.iterdir():
        if path.suffix in (*_LARGE, ".part"):
            files.remove(path.name)


def _unfinished(
    offline_root: str, model: str, asked: AskedRun, code: str, note: Note, only: str | None = None
) -> tuple[RunFiles, RunRecord] | None:
    """The newest run that can be gone on with, held now. The work of others that did not end is deleted, unless somebody holds them. `only`: the one run
    that is meant; others are left alone."""
    found = None
    for folder in folders_of(offline_root, model):
        if only is not None and folder.name != only:
            continue
        files = RunFiles(folder)
        record = _read(files, _RUN, RunRecord)
        if files.read(_ENDED) is not None:
            continue
        if not files.hold():
            note(f"run {folder.name} of {model} is at work in another process; this one does not wait for it")
            continue
        same = record is not None and (record.asked, record.code, record.packages) == (asked, code, packages())
        if found is None and record is not None and same and now_ms() - record.began < GOES_ON_MS:
            found = files, record
            continue
        drop_large(files)
        files.release()
    return found


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1)


def _read(files: RunFiles, name: str, kind: type[S]) -> S | None:
    """A record; None when there is none, or one that another version of tidemill wrote and this one cannot read."""
    content = files.read(name)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError:
        return None
