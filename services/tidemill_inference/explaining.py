"""Explanations of predictions that were just made: from the logged inputs, so also of a repeated request. They never keep an answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from cachetools import LRUCache

from tidemill.attribution.explainer import Attribution, Explainer
from tidemill.attribution.loading import load_explainer
from tidemill.errors import TidemillError
from tidemill.models.artifact import stored_artifact
from tidemill.models.inputs import vector_of
from tidemill.records import PredictionRecord
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

KEPT_VERSIONS = 8


class Unexplained(msgspec.Struct, frozen=True):
    """Why a prediction is not explained, and what to do about it."""

    error: str
    mend: str


class Explaining:
    """Explains predictions in threads, so that other requests go on. What explains a version is read when it is first asked for."""

    def __init__(self, offline_root: str) -> None:
        self._root = offline_root
        self._explainers: LRUCache[tuple[str, str], asyncio.Future[Explainer]] = LRUCache(KEPT_VERSIONS)

    async def explain(self, records: Sequence[PredictionRecord]) -> list[Attribution | Unexplained]:
        """One explanation for each prediction, in order."""
        return [await self._one(record) for record in records]

    async def _one(self, record: PredictionRecord) -> Attribution | Unexplained:
        try:
            explainer = await self._explainer(record.model, record.version)
            return await asyncio.to_thread(explainer.explain, vector_of(record.inputs), record.contents)
        except TidemillError as error:
            return Unexplained(error.message, error.mend)
        except Exception as error:  # the prediction is made and logged: its answer must not be lost
            log.exception("cannot explain", model=record.model, version=record.version)
            return Unexplained(f"the explanation fails: {error!r}", "report this")

    async def _explainer(self, model: str, version: str) -> Explainer:
        """Raises ArtifactError; the next request tries again then."""
        made = self._explainers.get((model, version))
        if made is None or (made.done() and made.exception() is not None):
            made = self._explainers[model, version] = asyncio.ensure_future(asyncio.to_thread(self._load, model, version))
        return await asyncio.shield(made)

    def _load(self, model: str, version: str) -> Explainer:
        return load_explainer(self._root, stored_artifact(self._root, model, version))
