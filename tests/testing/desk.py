"""A help desk: tickets with free texts and small pictures, which are urgent or not, in a world and in its offline store."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tests.demo_state import NOW_MS

import tidemill as tm
from tidemill.declarations.project import Project
from tidemill.testing import World
from tidemill.training.version import Version, make_version

MINUTE = 60_000
UNTIL_MS = NOW_MS + 10**8
OPENED = tm.Event(
    "opened", {"ticket": str, "at": int, "shop": str, "note": str | None, "pixels": str, "amount": float | None}, time="at", id="ticket"
)
CLOSED = tm.Event("closed", {"ticket": str, "at": int, "shop": str, "urgent": bool}, time="at", id="ticket")
SHOPS = tm.FeatureView("shops", CLOSED, "shop", [tm.count()], windows=["1h"])
PIXELS = tm.Tensor("pixels", shape=(2, 3))
NICE = ["thanks", "great café", "wie geht's", "안녕하세요", "all good 👍🏽", "merci beaucoup"]
BAD = ["broken again", "REFUND now", "Straße kaputt", "환불 부탁드립니다", "angry 😡", "à l'aide"]
NASTY = [
    None,
    "",
    " ",
    "\n",
    "ÉCOLE déjà",
    "안녕하세요 환불",
    "😡👍🏽",
    "nul\0refund",
    "İstanbul ΣΟΦΟΣ",
    "refund " * 1_500,
    "x" * 10_000,
    "never seen",
]


def words() -> Any:
    """The words of the note, and the amount, by name."""
    columns = [("words", TfidfVectorizer(), "note"), ("numbers", SimpleImputer(), ["amount", "shops__count_1h"])]
    return make_pipeline(ColumnTransformer(columns), LogisticRegression())


def pictures() -> Any:
    """Pixels and numbers as one matrix."""
    return make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression())


def project(inputs: Sequence[Any] | None = None, pipeline: Any = words) -> Project:
    """Is a ticket urgent?"""
    taken = inputs or [SHOPS, tm.Words("note"), tm.Request("amount")]
    model = tm.Model("urgent", OPENED, "at", "ticket", taken, tm.Outcome(CLOSED, "urgent", "ticket", within="1h"), pipeline)
    return Project("desk", {"opened": OPENED, "closed": CLOSED}, {"shops": SHOPS}, {"urgent": model})


def picture(draw: random.Random, *, bright: bool) -> list[list[float]]:
    """Two rows of three pixels."""
    return [[draw.random() + 0.2 * bright for _ in range(3)] for _ in range(2)]


def base64(pixels: Any) -> str:
    """A picture as an event has it."""
    return b64encode(np.array(pixels, "<f4").tobytes()).decode()


def happened(tickets: int, seed: int = 1) -> list[tuple[int, str, dict[str, Any]]]:
    """Urgent tickets have bad words and bright pictures; some have no text; in the order of known."""
    draw, events = random.Random(seed), list[tuple[int, str, dict[str, Any]]]()
    for i in range(tickets):
        at, urgent = NOW_MS + i * MINUTE, draw.random() < 0.5
        said = draw.sample(BAD if urgent else NICE, 2) + draw.sample(NICE + BAD, 1)
        asked = {"ticket": f"t{i}", "at": at, "shop": draw.choice("abc"), "amount": draw.choice([None, draw.random()])}
        note = None if i % 10 == 0 else " ".join(said)
        events.append((at, "opened", asked | {"note": note, "pixels": base64(picture(draw, bright=urgent))}))
        events.append((at + 1_000, "closed", {"ticket": f"t{i}", "at": at + 1_000, "shop": asked["shop"], "urgent": urgent}))
    return events


def lived(of: Project, tickets: int = 150) -> World:
    """A world in which all this happened."""
    world = World(of)
    for known_ms, name, data in happened(tickets):
        world.publish(name, data, at=known_ms)
    return world


def trained(world: World) -> Version:
    """A version, deployed."""
    version = make_version(world.project.models["urgent"], world.training_set("urgent"), UNTIL_MS, lambda _: None)
    world.deploy(version.artifact)
    return version
