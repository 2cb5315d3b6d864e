"""The card of a model version: what it says and when, what it was made of, how good it is, which inputs count, and what it is not made for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UnsetType

from tidemill.declarations import Model
from tidemill.models.artifact import Manifest, ModelInput
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.stats.histograms import Histogram
from tidemill.training.made_with import MadeWith

FORM = "tidemill model card 1"


class CardQuestion(msgspec.Struct, frozen=True):
    """What the model is asked, as the project declares it now. `outcome`: the field or condition that is the truth; `missing`: what becomes
    of requests with inputs that cannot be known."""

    asked_on: str
    at: str
    subject: str
    outcome_event: str
    outcome: str
    within: str
    absent: float | str | None
    missing: str
    description: str


class CardInput(msgspec.Struct, frozen=True):
    """An input: its share in the contributions to answers (None: not known), how often training had no value, and of a number the bounds of
    its middle tenths, of a text how many there were."""

    name: str
    kind: str
    importance: float | None
    missing_share: float
    low: float | None
    high: float | None
    texts: int | None


class ModelCard(msgspec.Struct, frozen=True):
    """All of it. Times are epoch ms. `explained`: whether answers can be explained; `files`: SHA-256 of each, by name; `limits`: in words."""

    form: str
    model: str
    version: str
    created: int
    output: str
    role: str
    question: CardQuestion | None
    trained_from: int
    trained_until: int
    rows: int
    metrics: dict[str, float]
    parity: dict[str, float]
    inputs: list[CardInput]
    views: dict[str, str]
    explained: bool
    files: dict[str, str]
    made_with: MadeWith | None
    limits: list[str]


def card_of(manifest: Manifest, sha256: str, model: Model | None, recorded: MadeWith | None, role: str) -> ModelCard:
    """The card of a version. `sha256`: of its manifest; `model`: as it is declared now (None: no more); `role`: which it has now."""
    explained = not isinstance(manifest.explanation_sha256, UnsetType)
    files = {"manifest.json": sha256, manifest.file_name: manifest.file_sha256}
    if not isinstance(manifest.explanation_sha256, UnsetType):
        files["explanation.npz"] = manifest.explanation_sha256
    return ModelCard(
        form=FORM,
        model=manifest.model,
        version=manifest.version,
        created=manifest.created,
        output=manifest.output,
        role=role,
        question=None if model is None else _question(model),
        trained_from=manifest.trained_from,
        trained_until=manifest.trained_until,
        rows=manifest.rows,
        metrics=manifest.metrics,
        parity={
            "largest_difference": manifest.parity.max_abs_diff,
            "tolerance": manifest.parity.tolerance,
            "rows": float(manifest.parity.rows),
        },
        inputs=sorted((_input(item, manifest) for item in manifest.inputs), key=lambda one: -(one.importance or 0.0)),
        views=manifest.definitions,
        explained=explained,
        files=files,
        made_with=recorded,
        limits=_limits(manifest, model, recorded),
    )


def _question(model: Model) -> CardQuestion:
    outcome = model.outcome
    return CardQuestion(
        model.on.name, model.at, model.subject, outcome.source.name, outcome.value, outcome.within, outcome.absent, model.on_missing,
        model.description,
    )  # fmt: skip


def _input(item: ModelInput, manifest: Manifest) -> CardInput:
    seen = manifest.reference.get(item.name)
    low, high = (None, None) if item.is_category or seen is None else middle(seen)
    texts = sum(text != UNKNOWN_TEXT for text in item.categories) if item.is_category else None
    missing = seen.missing / seen.rows if seen and seen.rows else 0.0
    return CardInput(item.name, item.kind, manifest.feature_importance.get(item.name), missing, low, high, texts)


def middle(seen: Histogram) -> tuple[float | None, float | None]:
    """The edges between which about eight tenths of the values lie; None without values."""
    if not seen.edges:
        return None, None
    total, below, edges = sum(seen.counts), 0, seen.edges
    low, high = edges[0], edges[-1]
    for edge, held in zip(edges, seen.counts, strict=False):
        below += held
        if below <= total / 10:
            low = edge
        if below >= total * 9 / 10:
            high = edge
            break
    return low, high


def _limits(manifest: Manifest, model: Model | None, recorded: MadeWith | None) -> list[str]:
    """What holds for every version, and what is particular to this one."""
    found = ["It knows what was known up to the end of its training set; drift detection watches how far the present is from it."]
    if own := manifest.own_pipeline:
        packages = ", ".join(f"{name} {version}" for name, version in own.packages.items())
        found.append(f"Its own pipeline serves it (python engine): slower than ONNX, and only with Python {own.python} and {packages}.")
    if any(item.is_category for item in manifest.inputs):
        found.append("A text that was not there in training is told as UNKNOWN_CATEGORY, and answered from the other inputs.")
    empty = [item.name for item in manifest.inputs if (seen := manifest.reference.get(item.name)) and seen.missing == seen.rows]
    if empty:
        found.append(f"Training had no value of {', '.join(empty)}.")
    if manifest.parity.on_threshold:
        tie = "a tie, and are answered otherwise alone than among others" if manifest.own_pipeline else "a threshold of a tree"
        found.append(f"{manifest.parity.on_threshold:,} of {manifest.parity.compared:,} compared rows lie on {tie}.")
    if not manifest.feature_importance or not any(manifest.feature_importance.values()):
        found.append("Which inputs count is not known.")
    if model is None:
        found.append("The project declares this model no more.")
    if recorded is None:
        found.append("What it was made with was not recorded: an earlier tidemill trained it.")
    elif recorded.own_labels:
        found.append("Its labels came from a file, not from events.")
    return found


def texts_of(inputs: Sequence[CardInput]) -> list[list[str]]:
    """Rows of a table of inputs, for people."""
    return [
        [
            one.name,
            one.kind,
            "" if one.importance is None else f"{one.importance:.1%}",
            f"{one.missing_share:.1%}",
            f"{one.texts:,} texts" if one.texts is not None else "" if one.low is None else f"{one.low:.4g} to {one.high:.4g}",
        ]
        for one in inputs
    ]
