"""The operator: changes the project while it runs, loads history, prunes, and runs each command again until it ends well."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tests.faults.injections import commands, orders
from tests.faults.injections.ground import Ground
from tests.faults.stages import Stage
from tests.faults.tally import Tally
from tests.faults.traffic import ENTITIES, PLACES, TOPIC, Traffic

from tidemill.catalogue.definitions import Definitions
from tidemill.errors import TidemillError
from tidemill.kafka.admin import admin
from tidemill.names import LogName
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions

PATIENCE_SECONDS = 300.0
LOADED = 100
"""The number of the first file's producer."""
FILE_EVENTS = 6_000
_MOST_VERSIONS = 3  # that are not in force: as long as it is there, each is folded, mirrored and compared like those in force
_AHEAD_MS, _LONG_MS = 20 * 60_000, 30 * 60_000  # history ends so long before the run, and is so long
_SHOWN = 400
T = TypeVar("T")


class Unwell(AssertionError):
    """A command does not end well."""


@dataclass
class History:
    """A file of measurements that were made before the run."""

    producer: int
    path: Path
    events: int = FILE_EVENTS
    refused: set[int] = field(default_factory=set)

    def write(self, pick: random.Random, until_ms: int, *, graded: bool) -> pa.Table:
        """Makes it. One row cannot be an event. Returns the events."""
        first_ms = until_ms - _AHEAD_MS - _LONG_MS
        self.refused = {pick.randrange(self.events)}
        rows = [
            {
                "id": f"{self.producer}-{number}", "at": first_ms + number * (_LONG_MS // self.events),
                "entity": None if number in self.refused else pick.randrange(ENTITIES), "place": f"p{pick.randrange(PLACES)}",
                "value": pick.random() * 100, "units": pick.choice([None, pick.randrange(400) / 4]),
                **({"grade": pick.choice([None, pick.randrange(40) / 4])} if graded else {}),
            }
            for number in range(self.events)
        ]  # fmt: skip
        self.path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), self.path)
        return pa.Table.from_pylist([row for row in rows if row["entity"] is not None])

    @property
    def sent(self) -> tuple[int, set[int]]:
        """How many numbers it has, and which were refused."""
        return self.events, self.refused


class Operator:
    """Runs what strikes ask for, one thing after the other; `lock` is held meanwhile. `loaded`: the events of all files that were loaded;
    `required`: for each log that was filled since, the producers whose events it must have; `runs`: how often a command was run."""

    def __init__(
        self, rig: Ground, kafka: KafkaSettings, project: str, traffic: Traffic, tally: Tally, say: Callable[[str], None], seed: int
    ) -> None:
        self._rig, self._kafka, self._project, self._traffic, self._tally, self._say = rig, kafka, project, traffic, tally, say
        self._folder = Path(rig.stack.project or "")
        self._pick = random.Random(seed)
        self._began_ms = time.time_ns() // 1_000_000
        self._stage = Stage()
        self.lock = asyncio.Lock()
        self.files: list[History] = []
        self.loaded: list[pa.Table] = []
        self.required: dict[LogName, dict[int, tuple[int, set[int]]]] = {}
        self.changes = self.runs = 0

    async def begin(self) -> None:
        """What runs by the project's file comes under the catalogue."""
        async with self.lock:
            await self._until_well("apply", "apply", "--yes")

    async def run(self) -> None:
        """Do what is asked for, for ever."""
        while True:
            if not orders.to_come(self._rig.orders):
                await asyncio.sleep(0.2)
                continue
            await asyncio.sleep(0.5)  # strikes at once ask at once
            async with self.lock:
                wanted = orders.take(self._rig.orders)
                await self._do(wanted)
            orders.ended(self._rig.orders, wanted)

    async def settled(self, began: float, after: str) -> float:
        """Returns the seconds from `began` (monotonic) until all that was asked for is done. Raises Unwell, naming what it came `after`."""
        while orders.to_come(self._rig.orders):
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise Unwell(f"after {after} commands did not end well within {PATIENCE_SECONDS:g} s: see apply.log, load.log, prune.log")
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def _do(self, wanted: set[str]) -> None:
        loads = "load" in wanted
        if loads:
            await self._load()
        await self._change(both=loads)  # so that what is in force has the history too
        now = await self._catalogue()
        if "prune" in wanted or len(now.views) - len(now.in_force) > _MOST_VERSIONS:
            await self._prune()

    async def _prune(self) -> None:
        """Versions that nobody reads go, with all that they had; one is made if there is none."""
        before = await insisting(self._topics)
        await self._until_well("prune", "prune", "--yes")
        if await insisting(self._topics) == before:
            await self._change(both=False)
            await self._until_well("prune", "prune", "--yes")
        held = {found.log for found in (await self._catalogue()).views}
        left = {log for log in await insisting(self._topics) | await asyncio.to_thread(self._tables) if log not in held and ".v" in log}
        self._tally.add("different", "left of versions that were pruned", left)

    async def _topics(self) -> set[str]:
        """The logs that have a topic."""
        async with admin(self._kafka) as client:
            topics: list[str] = await client.list_topics()
        stem = f"{self._project}.view."
        return {topic.removeprefix(stem) for topic in topics if topic.startswith(stem)}

    def _tables(self) -> set[str]:
        """The logs that have a table."""
        return {folder.name for folder in Path(self._rig.stack.offline, "views").iterdir()}

    async def _catalogue(self) -> Definitions:
        return await insisting(partial(read_definitions, self._kafka, self._project))

    async def _load(self) -> None:
        number = len(self.files)
        file = History(LOADED + number, self._rig.home / "history" / f"{number}.parquet")
        events = await asyncio.to_thread(file.write, self._pick, self._began_ms, graded=self._stage.graded)
        await self._until_well("load", "load", TOPIC, str(file.path), "--known-after", "1s")
        self.files.append(file)
        self.loaded.append(events)

    async def _change(self, *, both: bool) -> None:
        """The next stage of the project, in force."""
        self._traffic.extend()
        before, files = _handed(await self._catalogue()), {file.producer: file.sent for file in self.files}
        self._stage = self._stage.after(both=both)
        await asyncio.to_thread(self._stage.write, self._folder)
        await self._until_well("apply", "apply", "--yes")
        now = await self._catalogue()
        self.required |= dict.fromkeys(_handed(now) - before, files)
        in_force = {found.log for found in now.views if now.in_force.get(found.view.name) == found.version}
        changed = in_force - before
        self._tally.add("different", "views in force after apply ended well", [sorted(in_force)] if len(changed) != 1 + both else [])
        self.changes += len(changed)

    async def _until_well(self, process: str, *arguments: str) -> str:
        """Runs a command, again and again until it ends well. Returns what it said."""
        began = time.monotonic()
        while True:
            code, said = await self._run(process, *arguments)
            if not code:
                self._say(f"{process} ended well after {time.monotonic() - began:.1f} s")
                return said
            if "Traceback" in said:
                self._tally.add("different", f"{process}: an error that nobody thought of", [said[-_SHOWN:]])
            how = "was killed" if code < 0 else f"ended with {code}"
            self._say(f"{process} {how}: {' '.join(said[-_SHOWN:].split())}")
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise Unwell(f"{process} does not end well: {said[-_SHOWN:]}")
            await asyncio.sleep(1)

    async def _run(self, process: str, *arguments: str) -> tuple[int, str]:
        self.runs += 1
        running = await asyncio.create_subprocess_exec(
            *commands.argv(process, *arguments), env=commands.environment(self._rig, process),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await running.communicate()
        except asyncio.CancelledError:
            running.kill()
            raise
        with (self._rig.home / "logs" / f"{process}.log").open("ab") as log:
            log.write(said)
        return running.returncode or 0, said.decode(errors="replace")


async def insisting(ask: Callable[[], Awaitable[T]]) -> T:
    """What a server answers, however long it is away."""
    while True:
        try:
            return await ask()
        except (TidemillError, OSError):
            await asyncio.sleep(0.5)


def _handed(definitions: Definitions) -> set[LogName]:
    """The logs of the versions that were handed over."""
    return {found.log for found in definitions.views if found.handover is not None}
