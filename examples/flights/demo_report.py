"""The report at the end of the demo: a table by month, the proofs, and report.json."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from tidemill.models.artifact import ModelInput, stored_artifact
from tidemill.offline.store import OfflineStore
from tidemill.records import AlertRecord
from tidemill.training.fitting import outputs

WITHOUT_WINDOWS = ("weather__", "aircraft_register__")


@dataclass(frozen=True)
class Facts:
    """Everything the report says."""

    events: int
    predictions: int
    outcomes_joined: int
    auc: float
    auc_without_windows: float
    months: list[dict[str, Any]]
    audit: dict[str, int]
    replay: dict[str, int]
    verify: dict[str, int]
    dead_letters: int
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether no value differs, neither from the rows nor from SQL, and every replayed prediction is equal."""
        differ = self.audit["mismatched"] + self.verify["differ"] + self.replay["checked"] - self.replay["equal"]
        return differ == 0 and self.audit["checked"] > 0 and self.verify["values"] > 0

    def write(self, path: Path) -> None:
        """Writes report.json."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Plain:
    """The model without windows: the same pipeline, fitted on the same examples without the columns of windows. `kept`: its columns."""

    fitted: Any
    kept: list[int]


def monthly(store: OfflineStore, plain: Plain, model: str, alerts: list[AlertRecord]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The months and the totals, from the results and the prediction log as the offline store has them. Both models are scored on the same
    flights."""
    results = store.scan("results").to_pandas()
    results = results[(results["model"] == model) & (results["status"] == "joined")]
    logged = store.predictions(["id", "inputs"]).to_pandas().set_index("id").loc[results["prediction"]]
    inputs = np.vstack(logged["inputs"].to_list()).astype(np.float32)
    unaided = outputs(plain.fitted, inputs[:, plain.kept], probability=True)
    outcome, output = results["outcome"].to_numpy(), results["output"].to_numpy()
    month = results["time"].to_numpy().astype("datetime64[ms]").astype("datetime64[M]")
    rows = []
    for name in np.unique(month):
        mine = month == name
        rows.append(
            {
                "month": str(name),
                "flights": int(mine.sum()),
                "late_share": float(outcome[mine].mean()),
                "auc": _auc(outcome[mine], output[mine]),
                "auc_without_windows": _auc(outcome[mine], unaided[mine]),
                "alerts": _alerts_of(alerts, str(name)),
            }
        )
    totals = {"outcomes_joined": len(results), "auc": _auc(outcome, output), "auc_without_windows": _auc(outcome, unaided)}
    return rows, totals


def without_windows(store: OfflineStore, pipeline: Any, model: str) -> Plain:
    """Fits the pipeline without the columns of windows, on the examples of the version that answered."""
    version = store.predictions(["version"])["version"][0].as_py()
    examples: pa.Table = pq.read_table(io.BytesIO((Path(store.url) / f"models/{model}/{version}/training.parquet").read_bytes()))
    inputs = stored_artifact(store.url, model, version).manifest.inputs
    kept = [i for i, item in enumerate(inputs) if "__" not in item.name or item.name.startswith(WITHOUT_WINDOWS)]
    matrix = np.column_stack([_numbers(examples[inputs[i].name], inputs[i]) for i in kept]).astype(np.float32)
    with threadpool_limits(1, user_api="openmp"):  # the other processor has work
        return Plain(pipeline.fit(matrix, examples["label"].to_numpy()), kept)


def _numbers(column: pa.ChunkedArray, item: ModelInput) -> npt.NDArray[Any]:
    """An input as the model gets it: a category is its place in the list of the input."""
    if item.is_category:
        column = pc.index_in(column, value_set=pa.array(item.categories, pa.string()))
    numbers: npt.NDArray[Any] = column.to_numpy()
    return numbers


def _auc(outcome: npt.NDArray[np.float64], output: npt.NDArray[Any]) -> float:
    return float(roc_auc_score(outcome, output))


def _alerts_of(alerts: list[AlertRecord], month: str) -> list[str]:
    """What was opened in a month, for example "feature_drift weather__last_temp"."""
    return [
        f"{alert.kind} {alert.subject}"
        for alert in alerts
        if alert.state == "opened" and f"{datetime.fromtimestamp((alert.end - 1) / 1000, UTC):%Y-%m}" == month
    ]


def closing(facts: Facts, report: Path) -> None:
    """Prints the closing table."""
    console = Console(width=120)
    table = Table("month", "flights", "late", "AUC", "AUC without windows", "drift alerts opened", title="flights, June to December 2013")
    for row in facts.months:
        table.add_row(
            row["month"],
            f"{row['flights']:,}",
            f"{row['late_share']:.1%}",
            f"{row['auc']:.3f}",
            f"{row['auc_without_windows']:.3f}",
            _summary(row["alerts"]),
        )
    joined = f"{facts.outcomes_joined:,}"
    table.add_row(
        "all",
        joined,
        "",
        f"{facts.auc:.4f}",
        f"{facts.auc_without_windows:.4f}",
        str(sum(len(row["alerts"]) for row in facts.months)),
        style="bold",
    )
    console.print(table)
    console.print(
        f"{facts.events:,} events in, {facts.predictions:,} predictions logged, {joined} joined with their outcome, {facts.dead_letters} dead letters"
    )
    console.print(f"audit   online = offline: {facts.audit['checked']:,} values compared, {facts.audit['mismatched']} differ")
    console.print(
        f"replay  {facts.replay['checked']:,} logged predictions recomputed from Parquet, {facts.replay['equal']:,} equal bit for bit"
    )
    verify = facts.verify
    console.print(
        f"verify  recomputed by a second implementation (SQL) from raw events: {verify['values']:,} values, {verify['labels']:,} labels,"
        f" {verify['rows']:,} training rows, differences {verify['differ']}"
    )
    console.print(f"{facts.seconds:.0f} s in all; the same facts are in {report}")
    console.print(
        "\nnext:  make up   starts the stack and keeps it;  tidemill --help;  your own project: examples/flights/README.md", style="dim"
    )


def _summary(alerts: list[str]) -> str:
    """A few names, and how many more."""
    kinds = Counter(alert.split(" ", 1)[0] for alert in alerts)
    names = [alert.split(" ", 1)[1] for alert in alerts][:3]
    more = len(alerts) - len(names)
    return (
        "; ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.items())
        + (f": {', '.join(names)}" if names else "")
        + (f" +{more}" if more > 0 else "")
    )
