"""An explanation for people: the inputs with their values and contributions, as rows, and as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from tidemill.attribution.explainer import Attribution
from tidemill.attribution.links import Scale
from tidemill.models.artifact import ModelInput
from tidemill.models.inputs import UNKNOWN_TEXT

SCALES: dict[Scale, str] = {
    "probability": "the probability", "log_odds": "the log odds of the probability", "value": "the value", "log": "the logarithm of the value",
}  # fmt: skip
_SHOWN = 60
_METHODS = {
    "trees": "exact, by the leaves of the trees",
    "additive": "exact: the answer is a sum of one term for each input",
    "sampled": "by sampling, with standard errors",
}


class Bar(NamedTuple):
    """An input: its value as text, its contribution, and where its bar begins and ends on the scale."""

    name: str
    value: str
    contribution: float
    error: float | None
    begin: float
    end: float


def bars(found: Attribution, values: Mapping[str, str], most: int) -> list[Bar]:
    """The inputs that count most, from the base on, each from where the one before ended; the rest as one."""
    names = list(found.contributions)
    place, made = found.base, list[Bar]()
    shown = names if len(names) <= most else names[: most - 1]
    for name in shown:
        amount = found.contributions[name]
        error = None if found.standard_error is None else found.standard_error[name]
        made.append(Bar(name, values.get(name, ""), amount, error, place, place + amount))
        place += amount
    if rest := names[len(shown) :]:
        made.append(Bar(f"{len(rest)} other inputs", "", found.answer - place, None, place, found.answer))
    return made


def value_texts(inputs: Sequence[ModelInput], row: Sequence[float | None], contents: Mapping[str, str]) -> dict[str, str]:
    """What the model got for each input: a number, a text of its categories, the beginning of a free text, the shape and mean of a tensor, or "-".
    `contents`: those of the row, by name."""
    return {item.name: _text(item, value, contents.get(item.name, "")) for item, value in zip(inputs, row, strict=True)}


def _text(item: ModelInput, value: float | None, content: str) -> str:
    if value is None or math.isnan(value):
        return "-"
    if item.kind == "words":
        return _beginning(" ".join(content.split()))
    if item.is_content:
        return f"{' x '.join(map(str, item.lengths))}, mean {value:.6g}"
    if item.is_category:
        text = item.categories[int(value)] if int(value) < len(item.categories) else "?"
        return "(not there in training)" if text == UNKNOWN_TEXT else text
    return f"{value:.6g}"


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def told(found: Attribution) -> str:
    """How it was found, and of what the numbers are."""
    return f"contributions to {SCALES[found.scale]}, {_METHODS[found.method]}"


def page(title: str, answer: str, found: Attribution, values: Mapping[str, str], most: int = 25) -> str:
    """An HTML file. `title`: of which prediction; `answer`: what it said."""
    rows = bars(found, values, most)
    ends = [found.base, found.answer, *(bar.begin for bar in rows), *(bar.end for bar in rows)]
    low, high = min(ends), max(ends)
    wide = (high - low) or 1.0

    def x(place: float) -> float:
        return 380 + 460 * (place - low) / wide

    lines = [_row(i, bar, x(bar.begin), x(bar.end)) for i, bar in enumerate(rows)]
    height = 60 + 26 * len(rows)
    marks = "".join(
        f'<line x1="{x(place):.1f}" x2="{x(place):.1f}" y1="24" y2="{height - 24}" class="mark"/>'
        f'<text x="{x(place):.1f}" y="{y}" text-anchor="middle">{name} {place:.4g}</text>'
        for name, place, y in (("base", found.base, 16), ("answer", found.answer, height - 8))
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1><p><b>{escape(answer)}</b></p><p>{escape(told(found))}; base is the mean over rows of the training set</p>"
        f'<svg viewBox="0 0 960 {height}" role="img" aria-label="{escape(told(found))}">{marks}{"".join(lines)}</svg></html>\n'
    )


def _row(i: int, bar: Bar, begin: float, end: float) -> str:
    y, left = 32 + 26 * i, min(begin, end)
    error = "" if bar.error is None else f" ±{bar.error:.2g}"
    value = f" = {bar.value}" if bar.value else ""
    return (
        f'<text x="370" y="{y + 13}" text-anchor="end">{escape(bar.name)}{escape(value)}</text>'
        f'<rect x="{left:.1f}" y="{y}" width="{max(abs(end - begin), 1):.1f}" height="18" class="{"up" if bar.contribution >= 0 else "down"}"/>'
        f'<text x="{max(begin, end) + 6:.1f}" y="{y + 13}">{bar.contribution:+.4g}{error}</text>'
    )


_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222;background:#fff}h1{font-size:1.2em}"
    "svg{width:100%;font-size:13px}text{fill:#222}.up{fill:#c2410c}.down{fill:#1d4ed8}.mark{stroke:#999;stroke-dasharray:3 3}"
)
