"""The checker's process as its starter sees it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from tests.faults.injections.ground import ROOT
from tests.faults.messages import Configuration, Finish, Rewind, Status

_LINE_BYTES = 1 << 24


class CheckerProcess:
    """Started and ended by its starter. `status`: the newest; `findings`, `rewinds`: all so far."""

    def __init__(self, folder: Path, config: Configuration, on_finding: Callable[[str], None]) -> None:
        self._folder, self._config, self._on_finding = folder, config, on_finding
        self.status = Status({}, [], [])
        self.findings: list[str] = []
        self.rewinds: list[Rewind] = []
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it."""
        file = self._folder / "checker.json"
        file.write_bytes(msgspec.json.encode(self._config))
        paths = [str(ROOT / "shared"), str(ROOT / "services"), str(ROOT)]
        with (self._folder / "logs" / "checker.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.checker", str(file), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=log, limit=_LINE_BYTES, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1"},
            )  # fmt: skip

    async def run(self) -> None:
        """Listen until it ends. Raises RuntimeError when it ends before it has finished."""
        assert self._process.stdout
        async for line in self._process.stdout:
            self.status = msgspec.json.decode(line, type=Status)
            for finding in self.status.findings:
                self._on_finding(finding)
            self.findings += self.status.findings
            self.rewinds += self.status.rewinds
        if not self.status.finished:
            code = await self._process.wait()
            raise RuntimeError(f"the checker ended (exit code {code}): see {self._folder / 'logs' / 'checker.log'}")

    def finish(self, finish: Finish) -> None:
        """Tell it that all has come to its end."""
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(finish) + b"\n")

    async def end(self) -> None:
        """End it, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
