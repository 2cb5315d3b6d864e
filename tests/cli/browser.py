"""A page in a real browser, by its debugging protocol."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.ask import get as ask
from tests.patience import PATIENCE_SECONDS
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of it."""

    def __init__(self, link: ClientConnection) -> None:
        self._link, self._numbers = link, count(1)

    def does(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of the protocol gives."""
        number = next(self._numbers)
        self._link.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (found := json.loads(self._link.recv(timeout=PATIENCE_SECONDS))).get("id") != number:
            pass
        assert "error" not in found, found
        result: dict[str, Any] = found["result"]
        return result

    def value(self, expression: str) -> Any:
        """What JavaScript gives."""
        found = self.does("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def soon(self, expression: str) -> Any:
        """What it gives once that is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, self.value("document.body.innerText")
            time.sleep(0.1)
        return found

    def opens(self, url: str, ready: str) -> None:
        """Goes to a page, and waits until an expression is true there."""
        self.does("Page.navigate", url=url)
        self.soon(f"location.href.startsWith({url!r}) && {ready}")

    def uploads(self, selector: str, path: Path) -> None:
        """Chooses a file."""
        root = self.does("DOM.getDocument")["root"]["nodeId"]
        node = self.does("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.does("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser without a window, with its data in a folder."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    with subprocess.Popen(
        [*command, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            file, deadline = folder / "DevToolsActivePort", time.monotonic() + PATIENCE_SECONDS
            while not file.exists() or not file.read_text().strip():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            port = file.read_text().splitlines()[0]
            while not (pages := [one for one in ask(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page"]):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as link:
                yield Browser(link)
        finally:
            process.kill()


def png(path: Path, pixels: Sequence[Sequence[int]]) -> None:
    """Writes a grey picture, each pixel from 0 (black) to 255."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
