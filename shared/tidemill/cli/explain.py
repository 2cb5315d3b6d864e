"""`tidemill explain`: what the values of one entity are made of, online and offline side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.showing import moment, number
from tidemill.cli.target import need, target
from tidemill.cli.times import to_ms
from tidemill.clock import now_ms
from tidemill.errors import UnknownView

if TYPE_CHECKING:
    from tidemill.proof.explain import Explanation

OTHER = "bold red"


def explain(
    view: Annotated[str, typer.Argument(help="A view.")],
    entity: Annotated[str, typer.Argument(help="An entity's key.")],
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="Values at this moment.", show_default="now")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show tiles, fence, windows and newest event of an entity, online and offline side by side. Differences are marked.

    Exit code 1 when the two differ.
    """
    need("deltalake", "lake")
    need("hiredis", "store")
    from tidemill.kernel.keys import partition_of
    from tidemill.online.writer import OnlineWriter
    from tidemill.proof.explain import explain as find
    from tidemill.proof.partition_audit import PartitionAudit
    from tidemill.redis.client import redis_client

    at = target()
    project = at.project()
    if view not in project.views:
        raise UnknownView(view, list(project.views))
    declared, time_ms = project.views[view], now_ms() if as_of is None else to_ms(as_of)

    async def run() -> Explanation:
        async with redis_client(at.redis_url, timeout_seconds=10) as link:
            partition = partition_of(entity.encode(), declared.partitions)
            audit = PartitionAudit(project.name, declared, partition, at.store, link, wait_seconds=30)
            return await find(declared, entity, audit, OnlineWriter(link, project.name), time_ms)

    found = asyncio.run(run())
    if json:
        typer.echo(as_json(found))
    else:
        show(found)
    raise typer.Exit(1 if found.differences else 0)


def as_json(found: Explanation) -> bytes:
    """For machines: every part an object with names; NaN and infinities are null."""
    parts = {
        "newest": None if found.newest is None else found.newest._asdict(),
        "online": None if found.online is None else found.online.plain(),
        "offline": None if found.offline is None else found.offline.plain(),
        "features": [feature.plain() for feature in found.features],
        "differences": [difference.plain() for difference in found.differences],
    }
    return msgspec.json.encode(found._asdict() | parts)


def show(found: Explanation) -> None:
    """For a person."""
    say = Text.assemble
    console.print(
        say((found.entity, "bold"), f" of view {found.view}, log {found.log}, partition {found.partition}, at {moment(found.time_ms)}")
    )
    if found.where is not None:
        console.print(say(f"only events where {found.where}"))
    if found.erase is not None:
        console.print(say(f"erased by events where {found.erase}"))
    console.print(say(f"Redis keys: {found.entity_key}, and {found.fence_key} of the fence"))
    fence = found.fence
    if fence is None:
        console.print("no fence: feature computation has not begun this partition, nothing of it is served")
    else:
        counted = ", ".join(
            f"{name} {moment(fence[name]) if name == 'since' else fence[name]}"
            for name in fence
            if name not in ("next", "definition", "partitions", "proof", "sources") and fence[name] not in (None, "", b"")
        )
        console.print(say(f"fence: next {fence['next']}, definition {fence['definition']}, {counted}"))
        console.print(say(f"       last source positions {fence['sources']}"))
    if found.rebuilding:
        console.print(Text("rebuilding: its values are not served until the fence has caught up", style=OTHER))
    if found.damaged:
        console.print(Text(f"online value: {found.damaged}", style=OTHER))
    if found.newest is None:
        console.print(say(f"no rows below offset {found.offline_end}"))
    else:
        row = found.newest
        console.print(
            say(
                f"{found.rows:,} rows; the last: offset {row.offset}, time {moment(row.time_ms)}, known {moment(row.known_ms)}, id {number(row.id)}, source {row.source}"
            )
        )
    for name, side in (("online", found.online), ("offline", found.offline)):
        if side is not None:
            newest = "no event since it was erased" if side.newest_ms is None else f"newest event {moment(side.newest_ms)}"
            console.print(say(f"{name}: {newest}, recent ids {' '.join(side.ids) or 'none'}"))
    console.print(_features(found))
    console.print(_tiles(found))
    if found.differences:
        console.print(Text(f"{len(found.differences)} differences; for the events one by one: tidemill audit {found.view}", style=OTHER))


def _features(found: Explanation) -> Table:
    table = Table("feature", "online", "status", "offline", "status", "comes from", title="features")
    for item in found.features:
        same = (item.online_status, number(item.online)) == (item.offline_status, number(item.offline))
        cells = (
            item.name,
            number(item.online),
            item.online_status,
            number(item.offline),
            item.offline_status,
            f"{item.tiles} {item.window.grid.text} {item.window.text(item.covered)}",
        )
        table.add_row(*(Text(cell) for cell in cells), style="" if same else OTHER)
    return table


def _tiles(found: Explanation) -> Table:
    """One row per tile: each slot once where both sides agree, else as online | offline."""
    sides = [{} if side is None else side.tiles for side in (found.online, found.offline)]
    table = Table("tile", "slots (online | offline where they differ)", title="tiles")
    for tile in sorted(sides[0].keys() | sides[1].keys(), key=lambda tile: tile.written):
        online, offline = (side.get(tile, {}) for side in sides)
        cells = []
        for name in online or offline:
            one, other = number(online.get(name)), number(offline.get(name))
            cells.append(f"{name} {one}" if one == other else f"{name} {one} | {other}")
        same = online.keys() == offline.keys() and all(number(online[name]) == number(offline[name]) for name in online)
        table.add_row(Text(tile.text), Text(", ".join(cells)), style="" if same else OTHER)
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(explain)
