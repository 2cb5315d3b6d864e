"""A predictor within an application's own process: the same features, the same versions and roles, the same log, and no HTTP.

    from tidemill_inference.embedded import EmbeddedPredictor

    async with EmbeddedPredictor("examples/orders") as predictor:
        answer = await predictor.predict("pays_late", {"shop": "north", "amount": 719.0}, subject="order-77")
        answer.output, answer.degraded, answer.id

It does all that the service does, from the same code: it follows deployments and the catalogue, keeps the promise of ids, and returns only
what is in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import msgspec

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError, Unavailable, WorkerEnded
from tidemill.runtime.service import cancelled
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings
from tidemill_inference.app import Inference
from tidemill_inference.messages import PredictionAnswer, parse_predict
from tidemill_inference.settings import InferenceSettings

READY_SECONDS = 60.0
_PAUSE_SECONDS = 0.02


class EmbeddedPredictor:
    """Predicts while its block runs, in the loop that entered it.

    `project`: its folder, file or module. The addresses are those of the environment (KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, TIDEMILL_OFFLINE)
    unless they are given. Entering waits until Redis and Kafka answer and the deployments were read; it raises Unavailable after
    `ready_seconds`, SettingsError, ProjectError and DeclarationError.
    """

    def __init__(
        self,
        project: str,
        *,
        kafka: str | None = None,
        redis_url: str | None = None,
        offline: str | None = None,
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        self._settings = _settings(project, kafka, redis_url, offline)
        self._ready_seconds = ready_seconds
        self._inference: Inference | None = None
        self._work: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._inference = Inference(load_project(self._settings.project.project), self._settings)
        self._work = asyncio.create_task(self._inference.run(), name="embedded predictor")
        self._stack.push_async_callback(cancelled, self._work)
        try:
            await self._wait_ready(self._inference)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def predict(
        self,
        model: str,
        entities: Mapping[str, Any],
        *,
        subject: str | int | None = None,
        id: str | None = None,
        time: int | str | None = None,
        features: bool = False,
        explain: bool = False,
    ) -> PredictionAnswer:
        """One prediction, in the log when this returns; the arguments are the fields of `POST /predict/{model}`.

        Raises what that route answers as an error: BadRequest and its kinds, UnknownModel, Unavailable and its kinds.
        """
        instance = {"entities": entities, "subject": subject, "id": id, "time": time, "features": features, "explain": explain}
        (answer,) = await self._ask(model, instance)
        if isinstance(answer, TidemillError):
            raise answer
        return answer

    async def predict_many(
        self, model: str, instances: Sequence[Mapping[str, Any]], *, features: bool = False, explain: bool = False
    ) -> list[PredictionAnswer | TidemillError]:
        """A prediction for each instance, or the error in its place, by one read of the store and one write to the log. `instances`: each with
        `entities`, and perhaps `subject`, `id` and `time`."""
        return await self._ask(model, {"instances": list(instances), "features": features, "explain": explain})

    async def _ask(self, model: str, body: Mapping[str, Any]) -> list[PredictionAnswer | TidemillError]:
        if self._inference is None or self._work is None:
            raise RuntimeError("an EmbeddedPredictor predicts within its block: async with EmbeddedPredictor(...) as predictor")
        if self._work.done():
            raise Unavailable(f"the predictor has ended: {_reason(self._work)}", mend="enter a new one")
        return await self._inference.ask(model, parse_predict(msgspec.json.encode(body), now_ms()))

    async def _wait_ready(self, inference: Inference) -> None:
        assert self._work is not None
        deadline = asyncio.get_running_loop().time() + self._ready_seconds
        while not inference.board.ready:
            if self._work.done():
                self._work.result()
                raise WorkerEnded("the embedded predictor")
            if asyncio.get_running_loop().time() > deadline:
                missing = "; ".join(f"{check}: {reason}" for check, reason in inference.board.missing.items())
                raise Unavailable(
                    f"the predictor is not ready after {self._ready_seconds:g} s: {missing}", mend="see that the servers answer"
                )
            await asyncio.sleep(_PAUSE_SECONDS)


def _reason(work: asyncio.Task[None]) -> str:
    error = None if work.cancelled() else work.exception()
    return str(error) or type(error).__name__


def _settings(project: str, kafka: str | None, redis_url: str | None, offline: str | None) -> InferenceSettings:
    """What is given, and the rest from the environment. Raises SettingsError."""
    return InferenceSettings(
        project=ProjectSettings(project=project),
        kafka=KafkaSettings.load() if kafka is None else KafkaSettings(bootstrap_servers=kafka),
        redis=RedisSettings.load() if redis_url is None else RedisSettings(url=redis_url),
        offline=OfflineSettings.load() if offline is None else OfflineSettings(root=offline),
        http=HttpSettings(port=0),
    )
