"""Waiting until the services that run work by a record of the catalogue: each tells the record's number on `/metrics`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

import httpx

from tidemill.clock import Deadline
from tidemill.errors import TidemillError

FOLLOW_SECONDS = 60.0
UNKNOWN_SECONDS = 10.0
"""How long a service of unknown address gets."""

WRITERS = ("ingestion", "features", "offline")
"""The services that write what belongs to a version of a view."""

_POLL_SECONDS = 0.2
_NUMBER = re.compile(r"^tidemill_catalogue_records (\S+)$", re.MULTILINE)


class NotFollowed(TidemillError):
    """A service works by an older record of the catalogue than the newest."""


async def wait_followed(
    urls: Mapping[str, str], number: int, note: Callable[[str], None], *, all_known: bool = False, seconds: float = FOLLOW_SECONDS
) -> None:
    """Returns once every service works by record `number`, or a newer one. `urls`: service -> its address; `all_known`: no others run.

    A service that does not answer at all is not there: it will begin by the newest record. A writer whose address is not known gets ten
    seconds, which `note` is told. Raises NotFollowed after `seconds`.
    """
    unknown = [name for name in WRITERS if name not in urls]
    if unknown and not all_known:
        variables = ", ".join(f"TIDEMILL_{name.upper()}_URL" for name in unknown)
        note(f"the address of {', '.join(unknown)} is not known: {UNKNOWN_SECONDS:g} s to follow ({variables} would say when they have)")
        await asyncio.sleep(UNKNOWN_SECONDS)
    deadline = Deadline(seconds)
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while waited_for := [name for name, url in urls.items() if not await _follows(client, url, number)]:
            if deadline.expired:
                raise NotFollowed(
                    f"{', '.join(waited_for)} did not follow the catalogue to record {number} within {seconds:g} s",
                    mend="see /health/ready there (tidemill status), then run this again",
                )
            await asyncio.sleep(_POLL_SECONDS)


async def _follows(client: httpx.AsyncClient, url: str, number: int) -> bool:
    try:
        answer = await client.get(f"{url}/metrics")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    found = _NUMBER.search(answer.text)
    return found is not None and float(found[1]) >= number
