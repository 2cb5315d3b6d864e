"""`tidemill why`: from which inputs a logged prediction came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.target import need, offline_target
from tidemill.errors import TidemillError
from tidemill.proof.unknown import UnknownPrediction
from tidemill.timestamps import rfc3339

if TYPE_CHECKING:
    from tidemill.attribution.explainer import Attribution
    from tidemill.attribution.picture import Bar

_WIDTH = 20


def why(
    prediction: Annotated[str, typer.Argument(metavar="ID", help="A prediction's id.")],
    shadow: Annotated[bool, typer.Option("--shadow", help="What a shadow would have answered instead.")] = False,
    most: Annotated[int, typer.Option(min=2, help="How many inputs to show.")] = 15,
    json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object, all inputs.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a picture into this HTML file.")] = None,
) -> None:
    """Show from which inputs a logged prediction came: what each added to the mean answer, by the version that answered."""
    need("deltalake", "lake")
    need("onnxruntime", "inference")
    from tidemill.attribution.loading import load_explainer
    from tidemill.attribution.picture import bars, page, told, value_texts
    from tidemill.models.artifact import stored_artifact
    from tidemill.models.inputs import vector_of
    from tidemill.proof.replay import logged

    _, store = offline_target()
    record = next(iter(logged(store, [prediction], shadows=shadow)), None)
    if record is None:
        raise UnknownPrediction(prediction)
    artifact = stored_artifact(store.url, record.model, record.version)
    found = load_explainer(store.url, artifact).explain(vector_of(record.inputs), record.contents)
    values = value_texts(artifact.manifest.inputs, record.inputs, record.contents)
    title = f"prediction {record.id} of {record.model}@{record.version} at {rfc3339(record.time)}"
    answer = f"{artifact.manifest.output} {record.output:.6g}"
    if record.probabilities:
        answer = f"class {found.of_class}, probability {record.output:.6g}"
    if html is not None:
        _write(html, page(title, answer, found, values))
    if json:
        shown = {"prediction": record.id, "model": record.model, "version": record.version, "inputs": values}
        typer.echo(msgspec.json.encode(shown | {artifact.manifest.output: record.probabilities or record.output, "explanation": found}))
        return
    _say(title)
    _say(f"{answer}; {told(found)}")
    console.print(_table(found, bars(found, values, most)))


def _table(found: Attribution, rows: list[Bar]) -> Table:
    table = Table("input", "value", "adds", "")
    table.add_row("base", "", f"{found.base:.4g}", "")
    largest = max((abs(bar.contribution) for bar in rows), default=0.0) or 1.0
    for bar in rows:
        length = round(_WIDTH * abs(bar.contribution) / largest)
        drawn = Text("█" * length, style="red" if bar.contribution > 0 else "blue")
        error = "" if bar.error is None else f" ±{bar.error:.2g}"
        table.add_row(Text(bar.name), Text(bar.value), f"{bar.contribution:+.4g}{error}", drawn)
    table.add_row("answer", "", f"{found.answer:.4g}", "")
    return table


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise TidemillError(f"{path} cannot be written: {error}", mend="name a file in a folder that exists and is yours") from error
    _say(f"written to {path}")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(why)
