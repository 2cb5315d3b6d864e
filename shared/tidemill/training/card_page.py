"""A model card as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tidemill.timestamps import rfc3339
from tidemill.training.card import ModelCard, texts_of

_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222;background:#fff}h1{font-size:1.4em}"
    "h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .7em .25em 0;"
    "border-bottom:1px solid #ddd;vertical-align:top;overflow-wrap:anywhere}svg{height:.8em;width:9em}rect{fill:#c2410c}code{font-size:.9em}"
)


def card_page(card: ModelCard) -> str:
    """The file."""
    title = f"{card.model}@{card.version}"
    parts = [
        f"<h1>{escape(title)}</h1>", _paragraph(card.question.description) if card.question else "",
        _section("What it is", _facts(_about(card))), _section("How good it is", _facts([(name, f"{value:.5g}") for name, value in card.metrics.items()])),
        _section("Inputs", _inputs(card)), _section("Limits", f"<ul>{''.join(f'<li>{escape(limit)}</li>' for limit in card.limits)}</ul>"),
        _section("What it was made with", _facts(_made_with(card))), _section("Files", _facts(list(card.files.items()))),
    ]  # fmt: skip
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>{"".join(parts)}</html>\n'


def _about(card: ModelCard) -> list[tuple[str, str]]:
    facts = [("answers", f"a {card.output}"), ("role", card.role), ("trained", rfc3339(card.created))]
    if asked := card.question:
        facts += [
            ("asked", f"on {asked.asked_on}, at its {asked.at}, about its {asked.subject}"),
            ("the truth", f"{asked.outcome} of {asked.outcome_event}, within {asked.within}" + _absent(asked.absent)),
            ("inputs that cannot be known", "are told, and taken as missing" if asked.missing == "predict" else "no answer"),
        ]
    rows = f"{card.rows:,} requests from {rfc3339(card.trained_from)} to {rfc3339(card.trained_until)}"
    parity = f"differs from its pipeline by at most {card.parity['largest_difference']:.2g}"
    return [
        *facts,
        ("trained on", rows),
        ("python engine, slower" if "model.pickle" in card.files else "ONNX", parity),
        ("explanations", "yes" if card.explained else "no"),
    ]


def _absent(absent: float | str | None) -> str:
    return "" if absent is None else f"; {absent} when none comes"


def _made_with(card: ModelCard) -> list[tuple[str, str]]:
    views = [(f"view {name}", definition) for name, definition in card.views.items()]
    if card.made_with is None:
        return views
    made = card.made_with
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    return [
        ("pipeline", made.pipeline),
        ("packages", packages),
        ("machine", made.machine),
        ("training set", f"SHA-256 {made.data}"),
        *views,
    ]


def _inputs(card: ModelCard) -> str:
    most = max((one.importance or 0.0 for one in card.inputs), default=0.0) or 1.0
    rows = []
    for one, (name, kind, importance, missing, seen) in zip(card.inputs, texts_of(card.inputs), strict=True):
        wide = 100 * (one.importance or 0.0) / most
        bar = f'<svg viewBox="0 0 100 10" preserveAspectRatio="none"><rect width="{wide:.1f}" height="10"/></svg>'
        rows.append(f"<tr>{_cells([name, kind])}<td>{bar} {importance}</td>{_cells([missing, seen])}</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("input", "kind", "importance", "missing in training", "middle eight tenths"))
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return f"<table>{''.join(f'<tr>{_cells(fact)}</tr>' for fact in facts)}</table>"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
