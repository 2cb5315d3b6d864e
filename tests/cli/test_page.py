"""The page of the image template in a real browser: a picture is uploaded, answered, and the truth is told. The model is a real one, in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.ask import get as ask
from tests.cli.browser import CHROMIUM, Browser, browser, png
from tests.offline.lake import ROOT
from tests.patience import PATIENCE_SECONDS

from tidemill.cli.init import make_project
from tidemill.local.processes import free_port

pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")]
SERVE = """
import json, sys, httpx, uvicorn
import app as page
from data import events
from tidemill.testing import World

world = World.load(".")
for known_ms, name, data in events(1_767_571_200_000, most=700):
    world.publish(name, data, at=known_ms)
world.train("digit")

def answer(request):
    body = json.loads(request.content)
    if request.url.path == "/predict/digit":
        found = world.predict("digit", body["entities"])
        return httpx.Response(200, json={"class": found.chosen, "probabilities": found.probabilities})
    with open("told.jsonl", "a") as file:
        file.write(json.dumps(body) + "\\n")
    return httpx.Response(200, json={"accepted": 1})

page.client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
uvicorn.run(page.app, port=int(sys.argv[1]), log_level="error")
"""
"""The application with a world in the place of the services."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """(folder, address) of the page of a new project."""
    folder, port = tmp_path / "digits", free_port(set())
    make_project(folder, "image")
    paths = os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services")))
    environment = {**os.environ, "PYTHONPATH": paths, "INGESTION": "http://ingestion", "INFERENCE": "http://inference"}
    with subprocess.Popen([sys.executable, "-c", SERVE, str(port)], cwd=folder, env=environment) as process:
        try:
            url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + PATIENCE_SECONDS
            while not _answers(url):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield folder, url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return ask(url).is_success
    except httpx.TransportError:
        return False


def drawn(path: Path, place: int, *, dark: bool = False) -> int:
    """Writes a large, wide picture of a digit that was not trained on, and returns the digit."""
    found, side = load_digits(), 40
    small = found.images[place]
    blank = [255] * (2 * side)  # paper on both sides, which is cut off
    rows = []
    for row in small:
        line = [*blank, *(255 - min(int(ink * 16), 255) for ink in row for _ in range(side)), *blank]
        rows += [[255 - value for value in line] if dark else line] * side
    png(path, rows)
    return int(found.target[place])


def told(folder: Path) -> list[dict[str, Any]]:
    """The events that were published."""
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


def _uploads(page: Browser, path: Path) -> str:
    page.value("document.getElementById('class').textContent = ''; document.getElementById('answer').hidden = true")
    page.uploads("#file", path)
    return str(page.soon("!document.getElementById('answer').hidden && document.getElementById('class').textContent"))


def test_a_person_uses_the_page(served: tuple[Path, str], tmp_path: Path) -> None:
    """Large pictures are scaled to the model's pixels and mostly read; "yes" and "no, it is" tell the truth about the picture; also light on dark."""
    folder, url = served
    with browser(tmp_path / "browser") as page:
        page.opens(url, "document.querySelectorAll('#digit option').length == 10")
        right, places = 0, range(1700, 1706)
        for place in places:
            wanted = drawn(path := tmp_path / f"{place}.png", place)
            right += _uploads(page, path) == str(wanted)
        assert right >= len(places) - 1
        shares = page.value("[...document.querySelectorAll('.row')].map(row => row.textContent)")
        assert len(shares) == 10
        page.value("document.getElementById('yes').click()")
        page.soon("document.getElementById('thanks').textContent.startsWith('Thank you')")
        *_, shown, verdict = told(folder)
        assert (shown["type"], verdict["type"]) == ("digits.shown", "digits.told")
        assert shown["data"]["picture"] == verdict["data"]["picture"]
        wanted_pixels = np.minimum(load_digits().images[places[-1]] * 16, 255) / 255
        pixels = np.frombuffer(b64decode(shown["data"]["pixels"]), "<f4").reshape(8, 8)
        assert np.abs(pixels - wanted_pixels).max() < 0.05, "each is the mean of what it covers"

        wanted = drawn(path := tmp_path / "dark.png", 1710, dark=True)
        page.value("document.getElementById('dark').checked = true")
        assert _uploads(page, path) == str(wanted)
        page.value(
            "document.getElementById('no').click(); document.getElementById('digit').value = '7'; document.getElementById('say').click()"
        )
        page.soon("document.getElementById('thanks').textContent.includes('7')")
        assert told(folder)[-1]["data"]["digit"] == "7"
        assert page.value("document.getElementById('error').textContent") == ""

        (tmp_path / "none.png").write_text("no picture")
        page.uploads("#file", tmp_path / "none.png")
        assert page.soon("document.getElementById('error').textContent")
