"""`tidemill rebuild`: makes values of the online store anew from the offline store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import need, target
from tidemill.errors import UnknownView

if TYPE_CHECKING:
    from tidemill.operations.rebuild import Rebuilt


def rebuild(
    view: Annotated[str, typer.Argument(help="The view to make anew.")],
    partition: Annotated[list[int] | None, typer.Option(min=0, help="This partition only; may be repeated.", show_default="all")] = None,
) -> None:
    """Make a view's values in Redis anew from Parquet, while services run. Feature computation continues from there.

    It rebuilds one partition at a time. Until that has caught up, its values are not served (status INVALID; inference answers 503
    `rebuilding`).
    """
    need("deltalake", "lake")
    need("hiredis", "store")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tidemill.operations.rebuild import Rebuild
    from tidemill.redis.client import redis_client

    at = target()
    project = at.project()
    if view not in project.views:
        raise UnknownView(view, list(project.views))
    declared = project.views[view]
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn(), console=console
    )

    async def run() -> list[Rebuilt]:
        async with redis_client(at.redis_url, timeout_seconds=10) as link:
            job = Rebuild(project, declared, at.store, link, at.kafka_settings)
            return await job.run(partitions, lambda number, rows, total: bar.update(tasks[number], completed=rows, total=total))

    partitions = sorted(set(partition)) if partition else list(range(declared.partitions))
    with bar:
        tasks = {number: bar.add_task(f"{view}[{number}]", total=None) for number in partitions}
        done = asyncio.run(run())
    for item in done:
        left = item.topic_end - item.rows
        console.print(
            f"{view}[{item.partition}]: {item.rows:,} rows folded, {item.values:,} values written; "
            + (f"feature computation goes on with the {left:,} records after them" if left > 0 else "nothing is left to be folded"),
            markup=False,
            highlight=False,
        )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(rebuild)
