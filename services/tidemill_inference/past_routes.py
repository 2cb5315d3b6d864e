"""Predictions of before, over HTTP: from which inputs one came, by its id."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.responses import Response

from tidemill.errors import UnknownTable
from tidemill.models.artifact import stored_manifest
from tidemill.offline.store import OfflineStore
from tidemill.proof.replay import logged
from tidemill.proof.unknown import UnknownPrediction
from tidemill.records import PredictionRecord
from tidemill_inference.explaining import Explaining
from tidemill_inference.messages import PredictionAnswer, PredictRequest, answer_body

AT_ONCE = 2  # each reads the ids of the whole table; more would take memory and processor from predictions


class PastRoutes:
    """Adds the routes to an application."""

    def __init__(self, offline_root: str, explaining: Explaining) -> None:
        self._root, self._explaining = offline_root, explaining
        self._turns = asyncio.Semaphore(AT_ONCE)

    def add(self, app: FastAPI) -> None:
        """`GET /predictions/{prediction_id}/explanation`."""
        app.get("/predictions/{prediction_id}/explanation", summary="From which inputs a logged prediction came")(self.explanation)

    async def explanation(self, prediction_id: str, shadow: bool = False) -> Response:
        """The prediction as it was answered, without its features, and its explanation as `explain` gives it. `shadow`: what a shadow would have
        answered. Raises UnknownPrediction for one that is not in the offline store, or not yet; ArtifactError, OfflineUnavailable."""
        async with self._turns:
            answer, record = await asyncio.to_thread(self._find, prediction_id, shadow=shadow)
        (found,) = await self._explaining.explain([record])
        request = PredictRequest([], batch=False, features=False, explain=True)
        return Response(answer_body(request, [answer._replace(explanation=found)]), media_type="application/json")

    def _find(self, prediction_id: str, *, shadow: bool) -> tuple[PredictionAnswer, PredictionRecord]:
        try:
            record = next(iter(logged(OfflineStore(self._root), [prediction_id], shadows=shadow)), None)
        except UnknownTable:  # nothing was logged yet
            record = None
        if record is None:
            raise UnknownPrediction(prediction_id)
        manifest, _ = stored_manifest(self._root, record.model, record.version)
        probabilities = record.probabilities
        answer = PredictionAnswer(
            record.id, record.model, record.version, record.time, manifest.output, record.output, None, probabilities=probabilities
        )
        return answer, record
