"""A runner whose model is a pickled pipeline in a worker of its own. When nobody has the runner any more, its worker ends."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import msgspec
import numpy as np

from tidemill.errors import ArtifactError, BadRequest
from tidemill.models.pipelines.courier import START_SECONDS, Courier, Terms
from tidemill.models.pipelines.queue import AskedRows
from tidemill.models.pipelines.wire import ANSWER, EACH, WHOLE, Loading
from tidemill.models.runner import Array, TensorSpec

_FLOAT32 = np.dtype(np.float32)
_INPUT = "features"
_AT_ONCE = 200
RETIRED_SECONDS = 3.0


class PipelineRunner:
    """`label` names the model in errors. Raises ArtifactError when the pipeline cannot be loaded."""

    def __init__(self, label: str, loading: Loading, pickled: bytes, terms: Terms) -> None:
        self.inputs = [TensorSpec(_INPUT, _FLOAT32, (None, len(loading.columns)))]
        self.outputs = [TensorSpec(loading.output, _FLOAT32, (None, loading.width))]
        self._label, self._width, self._output = label, loading.width, loading.output
        self._courier = Courier(label, msgspec.msgpack.encode(loading), pickled, terms)
        self._idle_seconds = terms.idle_seconds
        self._finalizer = weakref.finalize(self, self._courier.close)
        self._courier.first.wait(2 * START_SECONDS)
        if self._courier.refused:
            raise ArtifactError(
                f"the pipeline of {label} cannot be loaded: {self._courier.refused}",
                mend="see that the project and the packages are those of the training, or train it again",
            )

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return self._courier.pid

    @property
    def failures(self) -> int:
        """How often a worker hung, ended or lacked memory."""
        return self._courier.failures

    def retire(self, *, retired: bool) -> None:
        """Nobody is to ask any more: the worker ends once it is idle, and who asks all the same is answered by another. Or somebody is again."""
        self._courier.idle_seconds = RETIRED_SECONDS if retired else self._idle_seconds

    def close(self) -> None:
        """Ends the worker now."""
        self._finalizer()
        self._courier.join()

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str] | None = None) -> list[Array]:
        """The answer to a row, or to many by one call. Raises BadRequest when the pipeline fails on them, EngineUnavailable."""
        rows = np.ascontiguousarray(inputs[_INPUT], np.float32)
        return [self.answer_of(self.asked(rows, EACH if len(rows) == 1 else WHOLE).result())] * len(wanted or [self._output])

    def each(self, rows: Array) -> Array:
        """The answers to many rows, each by a call of its own as `run` asks for one; shape (rows, width). Raises as `run`."""
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            futures = [self.asked(row.reshape(1, -1)) for row in np.ascontiguousarray(rows[start : start + _AT_ONCE], np.float32)]
            found += [self.answer_of(future.result()) for future in futures]
        return np.concatenate(found) if found else np.empty((0, self._width), np.float32)

    def asked(self, rows: Array, how: int = EACH) -> Future[bytes]:
        """Asks; see `answer_of` for what the future gets. It raises EngineUnavailable, at once or later."""
        asked = AskedRows(how, len(rows), rows.tobytes())
        self._courier.queue.put(asked)
        return asked.future

    def answer_of(self, answer: bytes) -> Array:
        """The numbers of an answer, shape (rows, width). Raises BadRequest when the pipeline fails on the rows."""
        if answer[0] != ANSWER:
            raise BadRequest(
                f"the pipeline of model {self._label} fails on these inputs: {answer[1:].decode()}",
                mend="check the values that come with the request, or mend the pipeline and train it again",
            )
        return np.frombuffer(answer, np.float32, offset=1).reshape(-1, self._width)
