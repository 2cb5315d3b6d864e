"""Feature serving's application: routes, Redis, health."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import FastAPI

from tidemill.clock import now_ms
from tidemill.declarations.project import Project, load_project
from tidemill.errors import Unavailable
from tidemill.kernel.served import Served, serve, withheld
from tidemill.kernel.view import ViewKernel
from tidemill.online.reader import OnlineReader, Stored
from tidemill.redis.client import keep_asking, redis_client
from tidemill.redis.protocol import RedisClient
from tidemill.runtime import metrics
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import add_ops_routes, fastapi_app
from tidemill.runtime.routes import Answer, HotRoute, add_hot_route
from tidemill.runtime.service import Service, run_together
from tidemill.streams.following import Following, InForce, every_record
from tidemill_serving.answers import answer_body, feast_error
from tidemill_serving.query import FeatureRequest, Query, QueryParser
from tidemill_serving.settings import ServingSettings

REDIS_TIMEOUT_SECONDS = 0.5
ROUTE = "/get-online-features"
_BREATH = 200  # readings between two turns of the loop, so that a large request does not delay small ones


class FeatureServing:
    """Answers feature requests from the online store."""

    def __init__(self, project: Project, link: RedisClient) -> None:
        self._kernels = {name: ViewKernel(view) for name, view in project.views.items()}
        self._reader = OnlineReader(link, project.name, self._kernels)
        self._parser = QueryParser(project)

    async def handle(self, _scope: Scope, body: bytes) -> Answer:
        """One request. Raises BadRequest, NotFound and StoreUnavailable."""
        query = self._parser.parse(body, now_ms())
        wanted = dict.fromkeys((i, key) for i, keys in enumerate(query.keys) for key in keys)
        present = [(i, key) for i, key in wanted if key is not None]
        stored = await self._reader.read([(query.plan.views[i].name, key) for i, key in present])
        rebuilding = sorted({query.plan.views[i].name for (i, _), item in zip(present, stored, strict=True) if item.rebuilding})
        served = await self._serve_all(query, wanted, dict(zip(present, stored, strict=True)))
        return Answer(answer_body(query, served, rebuilding))

    async def _serve_all(
        self, query: Query, wanted: dict[tuple[int, bytes | None], None], stored: dict[tuple[int, bytes], Stored]
    ) -> dict[tuple[int, bytes | None], Served]:
        served = {}
        for count, (i, key) in enumerate(wanted, 1):
            view = query.plan.views[i]
            found = stored[(i, key)] if key is not None else None
            if found is not None and found.rebuilding:
                served[(i, key)] = withheld(view)
                continue
            reading = None
            if found is not None and found.value is not None:
                reading = self._kernels[view.name].read(found.value, query.time_ms, found.since_ms)
            served[(i, key)] = serve(view, reading, query.time_ms)
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        return served


def _observe(_scope: Scope, status: int, seconds: float) -> None:
    metrics.SERVING_REQUEST_SECONDS.labels(ROUTE).observe(seconds)
    metrics.SERVING_RESPONSES.labels(ROUTE, str(status)).inc()


def describe(project: Project) -> dict[str, Any]:
    """Everything a client can ask for: views with their features, and models as feature services."""
    views = [
        {
            "name": view.name,
            "description": view.description,
            "event": view.source.name,
            "entity": view.key.name,
            "join_keys": list(view.key.names),
            "entity_description": view.key.description,
            "ttl": view.ttl,
            "features": [
                {
                    "name": feature.name,
                    "type": feature.aggregation.gives.__name__,
                    "aggregate": feature.aggregation.word,
                    "column": feature.aggregation.column,
                    "window_ms": feature.window.written_ms,
                }
                for feature in view.served
            ],
        }
        for view in project.views.values()
    ]
    services = [
        {
            "name": model.name,
            "description": model.description,
            "features": [f"{selection.view.name}:{name}" for selection in model.selections for name in selection.names],
        }
        for model in project.models.values()
    ]
    return {"project": project.name, "views": views, "feature_services": services}


def build(settings: ServingSettings, project: Project | None = None) -> Service:
    """The service, not yet running; ready when Redis answers and the catalogue was read. `project`: serve this one, whatever the catalogue
    says. Raises ProjectError and DeclarationError.
    """
    board = HealthBoard("redis", "catalogue")
    link = redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, on_change=partial(board.report, "redis"))

    serving = InTurn(link, board)
    following = None
    if project is None:
        tell = partial(board.down, "catalogue")
        following = Following(settings.kafka, load_project(settings.project.project), every_record, tell)
    else:
        serving.use(project)

    async def work() -> None:
        async with link:
            await run_together(keep_asking(link), *([following.run(serving.follow)] if following else []))

    return Service(settings, board, _app(board, serving), work)


class InTurn:
    """Serves by one project after the other: a request that has begun ends by the one by which it began."""

    def __init__(self, link: RedisClient, board: HealthBoard) -> None:
        self._link, self._board = link, board
        self._now: tuple[Project, FeatureServing] | None = None

    def use(self, project: Project) -> None:
        """Serve by this project from now on."""
        self._now = project, FeatureServing(project, self._link)
        self._board.up("catalogue")

    async def follow(self, now: InForce) -> None:
        """Serve by what is in force, until cancelled."""
        self.use(now.project)
        await asyncio.Event().wait()

    @property
    def project(self) -> Project:
        """The project by which it serves now. Raises Unavailable before the catalogue was read."""
        return self._found()[0]

    async def handle(self, scope: Scope, body: bytes) -> Answer:
        """See FeatureServing. Raises Unavailable before the catalogue was read."""
        return await self._found()[1].handle(scope, body)

    def _found(self) -> tuple[Project, FeatureServing]:
        if self._now is None:
            raise Unavailable("the catalogue was not read yet", mend="see that Kafka answers: /health/ready says why")
        return self._now


def _app(board: HealthBoard, serving: InTurn) -> FastAPI:
    app = fastapi_app(board, title="tidemill feature serving")
    hot = HotRoute(serving.handle, _observe, feast_error)
    add_hot_route(app, ROUTE, hot, summary="Features of entities (Feast's wire format)", request=FeatureRequest)

    @app.get("/features", summary="Views, their features, and models as feature services")
    async def features() -> dict[str, Any]:
        return describe(serving.project)

    add_ops_routes(app)
    return app
