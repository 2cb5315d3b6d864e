"""Waiting until services work by a record of the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.patience import PATIENCE_SECONDS

from tidemill.operations import followers
from tidemill.operations.followers import NotFollowed, wait_followed
from tidemill.runtime.asgi import respond
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings

NOBODY = "http://127.0.0.1:1"
AWAY = dict.fromkeys(followers.WRITERS, NOBODY)


class Service:
    """Tells by which record it works, as a service does."""

    def __init__(self) -> None:
        self.number = 3

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Answer any request."""
        await respond(send, 200, b"# HELP x y\ntidemill_catalogue_records %d.0\n" % self.number, b"text/plain")


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[str]:
    """Its address while it runs."""
    async with HttpServer(service, HttpSettings(port=0)) as server:
        yield server.url


async def test_it_waits_for_who_runs_and_not_for_who_does_not() -> None:
    """A service that is behind is waited for; one that does not answer at all will begin by the newest record."""
    service, notes = Service(), list[str]()
    async with running(service) as url:
        await asyncio.wait_for(wait_followed(AWAY | {"serving": url}, 3, notes.append), PATIENCE_SECONDS)
        waiting = asyncio.create_task(wait_followed(AWAY | {"serving": url}, 4, notes.append))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        service.number = 5
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    assert notes == []


async def test_a_service_that_stays_behind_is_named() -> None:
    """After the deadline the error says who, and that nothing is lost by trying again."""
    async with running(Service()) as url:
        with pytest.raises(NotFollowed, match=r"features did not follow the catalogue to record 4 within 0\.3 s") as caught:
            await wait_followed(AWAY | {"features": url}, 4, lambda _: None, seconds=0.3)
    assert "run this again" in caught.value.mend


async def test_unknown_addresses_get_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that cannot be asked gets a fixed time, and the operator reads how to name it."""
    monkeypatch.setattr(followers, "UNKNOWN_SECONDS", 0.1)
    notes = list[str]()
    await wait_followed({"ingestion": NOBODY}, 4, notes.append)
    (note,) = notes
    assert "the address of features, offline is not known: 0.1 s" in note
    assert "TIDEMILL_OFFLINE_URL" in note
    await wait_followed({}, 4, notes.append, all_known=True)
    assert notes == [note]
