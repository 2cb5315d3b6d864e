"""Charts as inline SVG: lines with points, and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#1f6feb", "#d1542c", "#2f8f4e", "#8250df", "#b7791f", "#0e7490")
_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 42
_BAR, _LABEL, _BARS = 20, 240, 420
_TICKS = 5


class Series(NamedTuple):
    """A line by its points, in the colour of its place."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """What an axis shows, and from where to where (None: the ends of the points)."""

    title: str
    low: float | None = None
    high: float | None = None


def colour(place: int) -> str:
    """The colour of the run at this place, in all charts of a page."""
    return COLOURS[place % len(COLOURS)]


def lines(series: Sequence[Series], across: Axis, up: Axis, *, diagonal: bool = False, dots: bool = False) -> str:
    """A chart of lines. `diagonal`: a dashed line of equal values; `dots`: each point is marked."""
    there = [point for one in series for point in one.points]
    x_low, x_high = _ends(across, [x for x, _ in there])
    y_low, y_high = _ends(up, [y for _, y in there])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    drawn = [_grid(place, (x_low, x_high), (y_low, y_high), (across.title, up.title))]
    if diagonal:
        low, high = max(x_low, y_low), min(x_high, y_high)
        (x1, y1), (x2, y2) = place(low, low), place(high, high)
        drawn.append(f'<line class="diagonal" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for number, one in enumerate(series):
        placed = [place(x, y) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour(number)}" stroke-width="2"/>')
        if dots:
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour(number)}"/>' for x, y in placed]
    return _svg(_WIDTH, _HEIGHT, drawn, f"{up.title} by {across.title}")


def bars(names: Sequence[str], groups: Sequence[Sequence[float]], title: str) -> str:
    """Bars from left to right: for each name one of each group, the groups in their colours. Values below 0 have no bar."""
    most = max([value for group in groups for value in group if math.isfinite(value)], default=0.0) or 1.0
    high = max(_BAR, 9 * len(groups) + 6)
    drawn = list[str]()
    for row, name in enumerate(names):
        top = row * high
        drawn.append(f'<text class="name" x="{_LABEL - 8}" y="{top + high / 2 + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>')
        size = (high - 6) / len(groups)
        for number, group in enumerate(groups):
            width = max(0.0, group[row]) / most * (_BARS - 70) if math.isfinite(group[row]) else 0.0
            y = top + 3 + number * size
            drawn.append(f'<rect x="{_LABEL}" y="{y:.1f}" width="{width:.1f}" height="{size - 1:.1f}" fill="{colour(number)}"/>')
            if len(groups) == 1:
                drawn.append(f'<text class="tick" x="{_LABEL + width + 5:.1f}" y="{y + size / 2 + 3:.1f}">{group[row]:.3g}</text>')
    return _svg(_LABEL + _BARS, max(high * len(names), 1), drawn, title)


def _grid(
    place: Callable[[float, float], tuple[float, float]], across: tuple[float, float], up: tuple[float, float], titles: tuple[str, str]
) -> str:
    """The lines of round numbers, with the numbers and the titles beside them."""
    (left, bottom), (right, top) = place(across[0], up[0]), place(across[1], up[1])
    found = list[str]()
    for value in ticks(*across):
        x = place(value, up[0])[0]
        found.append(f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        found.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{_number(value)}</text>')
    for value in ticks(*up):
        y = place(across[0], value)[1]
        found.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    found.append(f'<text class="axis" x="{(left + right) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(titles[0])}</text>')
    middle = (top + bottom) / 2
    turned = f'transform="rotate(-90 12 {middle:.0f})"'
    found.append(f'<text class="axis" x="12" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(titles[1])}</text>')
    return "".join(found)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about five of them."""
    rough = (high - low) / _TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * part for part in (1, 2, 2.5, 5, 10) if size * part >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """From where to where an axis goes: never from a value to itself."""
    low = min(values, default=0.0) if axis.low is None else axis.low
    high = max(values, default=1.0) if axis.high is None else axis.high
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return low - (margin if axis.low is None else 0), high + (margin if axis.high is None or high <= low else 0)


def _number(value: float) -> str:
    return f"{value / 1000:.3g}k" if abs(value) >= 10_000 else f"{value:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 31 else f"{name[:14]}…{name[-16:]}"


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
