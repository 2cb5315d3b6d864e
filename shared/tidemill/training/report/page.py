"""The report: one run, or several side by side, each in its colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tidemill.timestamps import rfc3339
from tidemill.training.report.charts import Axis, Series, bars, colour, lines
from tidemill.training.stages.evaluation import Evaluation, Segment

MOST_INPUTS = 15
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1f2328; background: #fff; margin: 2rem auto; max-width: 960px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p.about { color: #59636e; margin: .2rem 0; } .charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .25rem .8rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child, td.text, table.segments th:nth-child(2) { text-align: left; } thead th { border-bottom: 2px solid #8c959f; } td.best { font-weight: 700; }
.mark { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
svg { max-width: 100%; height: auto; }
"""
_STYLE_OF_CHARTS = """
.grid { stroke: #e3e7eb; } .diagonal { stroke: #8c959f; stroke-dasharray: 4 4; }
svg text { fill: #1f2328; font: 12px system-ui, "DejaVu Sans", sans-serif; } svg .tick { fill: #59636e; font-size: 11px; }
"""
_LARGER_IS_BETTER = ("auc", "auc_ovr", "accuracy", "skill")
_NEUTRAL = ("positive_share", "examples", "auc_error", "mae_error", "accuracy_error", "log_loss_error")


def page(runs: Sequence[Evaluation]) -> str:
    """A whole HTML file. It has no scripts and loads nothing."""
    names = ", ".join(dict.fromkeys(one.model for one in runs))
    title = f"{names}: {len(runs)} runs compared" if len(runs) > 1 else f"{names} {runs[0].version}"
    parts = [
        f"<h1>{escape(title)}</h1>", *(_about(place, one) for place, one in enumerate(runs)), _metrics(runs), _pictures(runs),
        _importance(runs), _segments(runs), _champions(runs),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}{_STYLE_OF_CHARTS}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _about(place: int, run: Evaluation) -> str:
    return (
        f'<p class="about">{_mark(place)}<b>{escape(run.version)}</b>: fitted on {run.fitted_rows:,} rows, measured on {run.held_out_rows:,} held out '
        f"from {rfc3339(run.held_out_from)} on, data set {escape(run.data[:12])}</p>"
    )


def _metrics(runs: Sequence[Evaluation]) -> str:
    """A row for each metric, beside that of who always says the mean label."""
    rows, same = list[list[str]](), same_rows(runs)
    for name in dict.fromkeys(name for one in runs for name in one.metrics):
        values = [one.metrics.get(name, math.nan) for one in runs]
        rows.append(_row(name, values, [one.baseline.get(name, math.nan) for one in runs], same=same))
    rows.append(_row("skill", [one.skill for one in runs], [0.0 for _ in runs], same=same))
    rows.append(_row("ece", [one.ece for one in runs], [math.nan for _ in runs], same=same))
    constant = ["always the mean"] if same else [f"{_mark(place)}always the mean" for place, _ in enumerate(runs)]
    head = ["", *(f"{_mark(place)}{escape(one.version)}" for place, one in enumerate(runs)), *constant]
    note = "<p class='about'>skill: the share of the loss of a constant answer that the model is without. ece: the mean distance of output and label over tenths.</p>"
    apart = (
        "" if same else "<p class='about'><b>They were measured on other rows: numbers of one row cannot be set beside each other.</b></p>"
    )
    return f"<h2>Quality on held-out rows</h2>{apart}{_table(head, rows)}{note}"


def same_rows(runs: Sequence[Evaluation]) -> bool:
    """Whether all runs were measured on the same held-out rows."""
    return len({(one.data, one.held_out_rows, one.held_out_from) for one in runs}) == 1


def _row(name: str, values: Sequence[float], base: Sequence[float], *, same: bool) -> list[str]:
    there = [value for value in values if math.isfinite(value)]
    best = (max if name in _LARGER_IS_BETTER else min)(there) if same and len(set(there)) > 1 and name not in _NEUTRAL else math.nan
    cells = [f'<td class="best">{_number(value)}</td>' if value == best else f"<td>{_number(value)}</td>" for value in values]
    return [f"<td>{escape(name)}</td>", *cells, *(f"<td>{_number(value)}</td>" for value in (base[:1] if same else base))]


def pictures(runs: Sequence[Evaluation]) -> dict[str, tuple[str, str]]:
    """The charts by name, each with its caption: `roc` of probabilities, `calibration`, and `learning` where there are parts."""
    found = dict[str, tuple[str, str]]()
    if any(one.roc for one in runs):
        rates = Axis("false positive rate", 0, 1), Axis("true positive rate", 0, 1)
        found["roc"] = "ROC", lines([Series(one.version, one.roc) for one in runs], *rates, diagonal=True)
    tenths = [Series(one.version, [(part.output, part.label) for part in one.bins]) for one in runs]
    ends = [value for one in tenths for point in one.points for value in point]
    low, high = (0.0, None) if min(ends, default=0.0) >= 0 else (None, None)
    several = runs[0].output == "probabilities"
    names = ("probability of the answer", "share that is right") if several else ("mean output", "mean label")
    axes = (Axis(name, low, high) for name in names)
    found["calibration"] = "Calibration, by tenths of the rows", lines(tenths, *axes, diagonal=True, dots=True)
    learnt = [Series(one.version, [(point.rows, point.loss) for point in one.learning]) for one in runs]
    if any(len(one.points) > 1 for one in learnt):
        loss = Axis(f"{runs[0].loss}, held out")
        found["learning"] = "Learning curve: does more data help?", lines(learnt, Axis("rows fitted on", 0), loss, dots=True)
    return found


def drawings(run: Evaluation) -> dict[str, str]:
    """The charts of a run as SVG files of their own, by file name."""
    charts = {name: chart for name, (_, chart) in pictures([run]).items()} | {"importance": _bars([run])[0]}
    style = f"<style>{_STYLE_OF_CHARTS}</style>"
    return {f"{name}.svg": chart.replace(">", f">{style}", 1) for name, chart in charts.items() if chart}


def _pictures(runs: Sequence[Evaluation]) -> str:
    figures = "".join(_figure(caption, chart) for caption, chart in pictures(runs).values())
    return f'<h2>Pictures</h2><div class="charts">{figures}</div>'


def _bars(runs: Sequence[Evaluation]) -> tuple[str, int]:
    """The bars of the most important inputs, and how many inputs have none; no chart of no inputs."""
    by_run = [{item.input: item.mean for item in one.importance} for one in runs]
    names = sorted({name for own in by_run for name in own}, key=lambda name: -max(own.get(name, -math.inf) for own in by_run))
    shown = names[:MOST_INPUTS]
    chart = bars(shown, [[own.get(name, math.nan) for name in shown] for own in by_run], "importance of inputs") if shown else ""
    return chart, len(names) - len(shown)


def _importance(runs: Sequence[Evaluation]) -> str:
    chart, others = _bars(runs)
    rest = f"<p class='about'>and {others} more inputs</p>" if others else ""
    title = f"<h2>Importance: how much {escape(runs[0].loss)} grows when an input is shuffled</h2>"
    return f"{title}{chart}{rest}" if chart else ""


def _segments(runs: Sequence[Evaluation]) -> str:
    by_run = [{(part.field, part.value): part for part in one.segments} for one in runs]
    keys = list(dict.fromkeys(key for own in by_run for key in own))
    if not keys:
        return ""
    shown = {"probability": "auc", "probabilities": "accuracy"}.get(runs[0].output, "rmse")
    metrics = [runs[0].loss, shown]
    head = ["field", "value", "rows", *(f"{_mark(place)}{escape(metric)}" for metric in metrics for place, _ in enumerate(runs))]
    rows = [_segment(key, [own.get(key) for own in by_run], metrics) for key in keys]
    return f"<h2>By segment</h2>{_table(head, rows, 'segments')}"


def _segment(key: tuple[str, str], parts: Sequence[Segment | None], metrics: Sequence[str]) -> list[str]:
    rows = max(part.rows for part in parts if part)
    cells = [f"<td>{_number(part.metrics.get(metric, math.nan) if part else math.nan)}</td>" for metric in metrics for part in parts]
    return [f"<td>{escape(key[0])}</td>", f'<td class="text">{escape(key[1])}</td>', f"<td>{rows:,}</td>", *cells]


def _champions(runs: Sequence[Evaluation]) -> str:
    found = list[str]()
    for place, one in enumerate(runs):
        beside = one.champion
        if beside is None:
            continue
        if beside.said:
            found.append(f'<p class="about">{_mark(place)}{escape(one.version)} and {escape(beside.version)}: {escape(beside.said)}</p>')
            continue
        rows = [
            [f"<td>{escape(loss.name)}</td>", *(f"<td>{_number(value)}</td>" for value in (loss.new, loss.champion)),
             f"<td>{loss.difference:+.3g} ({loss.low:+.3g} to {loss.high:+.3g})</td>"]
            for loss in beside.losses
        ]  # fmt: skip
        head = [
            f"{beside.rows:,} rows that neither has seen",
            f"{_mark(place)}{escape(one.version)}",
            f"champion {escape(beside.version)}",
            "difference, 95 %",
        ]
        found.append(_table(head, rows))
    return f"<h2>Beside the champion</h2>{''.join(found)}" if found else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "plain") -> str:
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{"".join(f"<th>{cell}</th>" for cell in head)}</tr></thead><tbody>{body}</tbody></table>'


def _figure(caption: str, chart: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def _mark(place: int) -> str:
    return f'<span class="mark" style="background:{colour(place)}"></span>'


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"
