"""A page for people who use the model: `uvicorn app:app`. They choose a picture, see the answer, and say whether it was right: the outcome.

Addresses come from the environment (INGESTION, INFERENCE), or are those of the stack that `tidemill up` started in this folder.
"""

import os
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
from data import base64
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from project import CLASSES, SIDE
from pydantic import BaseModel

from tidemill.local.addresses import find

app = FastAPI(title="myproject")
client = httpx.AsyncClient(timeout=10, trust_env=False)


class Picture(BaseModel):
    """`pixels`: rows of numbers between 0 (paper) and 1 (ink)."""

    pixels: list[list[float]]


class Verdict(BaseModel):
    """`picture`: the id that the answer had; `digit`: what is on it."""

    picture: str
    digit: str


@app.get("/")
async def page() -> FileResponse:
    """The page itself."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.get("/about")
async def about() -> dict[str, Any]:
    """What the page must know of the model."""
    return {"side": SIDE, "classes": CLASSES}


@app.post("/ask")
async def ask(picture: Picture) -> dict[str, Any]:
    """The model's answer. It is asked first; then the picture is published, for later trainings."""
    name, at = uuid.uuid4().hex, int(time.time() * 1000)
    answer = await _post(
        "inference", "/predict/digit", {"subject": name, "time": at, "entities": {"pixels": picture.pixels}, "features": False}
    )
    await _publish("myproject.shown", {"picture": name, "at": at, "pixels": base64(picture.pixels)})
    return {"picture": name, "class": answer["class"], "probabilities": answer["probabilities"]}


@app.post("/tell")
async def tell(verdict: Verdict) -> dict[str, Any]:
    """The truth about a picture."""
    if verdict.digit not in CLASSES:
        raise HTTPException(422, f"{verdict.digit} is none of {', '.join(CLASSES)}")
    await _publish("myproject.told", {"picture": verdict.picture, "at": int(time.time() * 1000), "digit": verdict.digit})
    return {"thanks": True}


async def _publish(event: str, data: dict[str, Any]) -> None:
    await _post("ingestion", "/events", {"type": event, "data": data})


async def _post(service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of a service. What it refuses is told to the page in its own words."""
    try:
        answer = await client.post(_url(service) + path, json=body)
    except httpx.TransportError as error:
        raise HTTPException(503, f"{service} does not answer: {error}") from None
    if answer.is_error:
        raise HTTPException(answer.status_code, answer.text[:500])
    found: dict[str, Any] = answer.json()
    return found


def _url(service: str) -> str:
    """Where a service is."""
    if service.upper() in os.environ:
        return os.environ[service.upper()]
    running = find(Path(os.environ["TIDEMILL_HOME"]) if "TIDEMILL_HOME" in os.environ else Path(__file__).with_name(".tidemill"))
    if running is None:
        raise HTTPException(503, f"no stack runs here: start it with `tidemill up --detach`, or set {service.upper()}")
    return running.urls[service]
