"""`tidemill models`: the versions of models, which of them serve in which role, and changing that."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.target import Target, need, target
from tidemill.errors import TidemillError, UnknownModel
from tidemill.timestamps import rfc3339

if TYPE_CHECKING:
    from tidemill.models.artifact import Manifest
    from tidemill.operations.deploying import Action, Deploying
    from tidemill.records import DeploymentRecord

SERVED_SECONDS = 60.0
ALIAS_SECONDS = 60.0  # a tracker that is away is given up long before; a busy machine takes its time
_TOP = 10
PYTHON = "(python engine, slower)"

commands = typer.Typer(
    no_args_is_help=True, help="The versions of models: list, show, compare, import; deploy, shadow, canary, promote, roll back, retire."
)
Version = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A stored version of a model.")]
Wait = Annotated[bool, typer.Option(help="Wait until inference serves it.")]


@commands.command("list")
def list_models(model: Annotated[str | None, typer.Argument(help="Only this model.")] = None) -> None:
    """List the stored versions of each model, newest first, with their roles."""
    from tidemill.models.pipelines.packages import learned_since

    at = _target()
    names = list(at.declared.models) if model is None else [_known(at, model)]
    history = asyncio.run(_deploying(at).history())
    table = Table("model", "version", "role", "share", "trained", "rows", "metrics")
    for name in names:
        roles = _roles(history.get(name, []))
        manifests = _manifests(at, name)
        for manifest in sorted(manifests, key=lambda one: -one.created):
            role, share = roles.get(manifest.version, ("", ""))
            role = f"{role} {PYTHON}".strip() if manifest.own_pipeline else role
            role = f"{role} {learned_since(manifest)}" if manifest.learning else role
            cells = [name, manifest.version, role, share, rfc3339(manifest.created), f"{manifest.rows:,}", _metrics(manifest.metrics)]
            table.add_row(*map(Text, cells))
        for version in roles.keys() - {manifest.version for manifest in manifests}:
            table.add_row(*map(Text, [name, version, *roles[version], "not in the offline store"]))
        if not manifests and not roles:
            table.add_row(*map(Text, [name, "none", "", "", "", "", f"run: {at.declared.models[name].making}"]))
    console.print(table)
    if model is not None:
        console.print(f"a new version: {at.declared.models[model].making}", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def show(version: Version) -> None:
    """Show one version: what it was trained on, its inputs and their importance, its metrics, and how near ONNX is."""
    from tidemill.models.pipelines.packages import how_served

    at = _target()
    manifest = _manifest(at, version)
    role, share = _roles(asyncio.run(_deploying(at).history()).get(manifest.model, [])).get(manifest.version, ("none", ""))
    facts = Table(show_header=False)
    for name, value in {
        "model": manifest.model,
        "version": manifest.version,
        "role": f"{role} {share}".strip(),
        "trained": rfc3339(manifest.created),
        "on requests": f"{manifest.rows:,} from {rfc3339(manifest.trained_from)} to {rfc3339(manifest.trained_until)}",
        "metrics": _metrics(manifest.metrics),
        "output": manifest.output + (f" of {', '.join(manifest.class_names)}" if manifest.class_names else ""),
        "engine": how_served(manifest) or "ONNX",
        "parity": f"differs from the pipeline by at most {manifest.parity.max_abs_diff:.2g}, of {manifest.parity.rows:,} rows",
        "views": ", ".join(f"{view} {definition}" for view, definition in manifest.definitions.items()),
    }.items():
        facts.add_row(Text(name), Text(value))
    console.print(facts)
    inputs = Table("input", "kind", "importance")
    for item in sorted(manifest.inputs, key=lambda one: -abs(manifest.feature_importance.get(one.name, 0.0))):
        texts = f" of {len(item.categories):,} texts" if item.is_category else ""
        importance = manifest.feature_importance.get(item.name)
        inputs.add_row(*map(Text, [item.name, item.kind + texts, "" if importance is None else f"{importance:.4g}"]))
    console.print(inputs)


@commands.command()
def compare(versions: Annotated[list[str], typer.Argument(metavar="MODEL@VERSION", help="Two or more stored versions.")]) -> None:
    """Compare versions side by side: metrics, training data, what differs in their inputs and views, and what they answered to the same requests."""
    if len(versions) < 2:
        raise typer.BadParameter("name two versions or more")
    at = _target()
    manifests = [_manifest(at, version) for version in versions]
    table = Table("", *(f"{one.model}@{one.version}" for one in manifests))
    for name in dict.fromkeys(name for one in manifests for name in one.metrics):
        table.add_row(Text(name), *(f"{one.metrics[name]:.4g}" if name in one.metrics else "-" for one in manifests))
    table.add_row("rows", *(f"{one.rows:,}" for one in manifests))
    table.add_row("until", *(rfc3339(one.trained_until) for one in manifests))
    for view in dict.fromkeys(view for one in manifests for view in one.definitions):
        if len({one.definitions.get(view) for one in manifests}) > 1:
            table.add_row(Text(f"view {view}"), *(one.definitions.get(view, "-") for one in manifests))
    names = [{item.name for item in one.inputs} for one in manifests]
    for name in sorted({name for own in names for name in own if not all(name in other for other in names)}):
        table.add_row(Text(f"input {name}"), *("yes" if name in own else "-" for own in names))
    both = dict.fromkeys(name for one in manifests for name in _most_important(one))
    for name in both:
        table.add_row(Text(f"importance {name}"), *(_importance(one, name) for one in manifests))
    console.print(table)
    for manifest in manifests[1:]:
        if manifest.model == manifests[0].model:
            _print_pairs(at, manifests[0], manifest)


def _print_pairs(at: Target, first: Manifest, other: Manifest) -> None:
    """What two versions of a model answered to the same requests, and what became of it."""
    from tidemill.proof.paired import paired_versions

    if first.output != other.output:
        console.print(
            f"{first.version} answers with {first.output} and {other.version} with {other.output}: no losses to compare", markup=False
        )
        return
    found = paired_versions(at.store, first.model, first.version, other.version, first.output)
    if not found.pairs:
        console.print(f"no request was answered by both {first.version} and {other.version}: let one be a shadow", markup=False)
        return
    if not found.answered:
        console.print(
            f"the same {found.pairs:,} requests, none with an outcome yet; outputs of {first.version} and {other.version} differ by"
            f" {found.apart:.4g} on average",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    title = f"the same {found.pairs:,} requests, {found.answered:,} with an outcome; outputs differ by {found.apart:.4g} on average"
    table = Table("", first.version, other.version, "difference, 95 % of one look", title=Text(title))
    if found.auc is not None:
        table.add_row("auc", *(f"{auc:.4g}" for auc in found.auc), "")
    for one in found.measures:
        table.add_row(one.name, f"{one.first:.4g}", f"{one.other:.4g}", f"{one.difference:+.3g} ({one.low:+.3g} to {one.high:+.3g})")
    console.print(table)


def _acting(action: Action, help_text: str) -> None:
    """Adds a command that gives a version a role."""

    def command(version: Version, wait: Wait = True) -> None:
        model, name = split_version(version)
        _act(action, model, name, None, wait=wait)

    commands.command(action, help=help_text)(command)


_acting("deploy", "Let one version answer all requests of a model, alone.")
_acting("shadow", "Ask a version beside the champion: what it would have answered is logged, and costs callers nothing.")
_acting("promote", "Make a version the champion. The challengers and shadows beside it stay.")
_acting("retire", "Take away a challenger or a shadow.")


@commands.command()
def canary(
    version: Version, share: Annotated[str, typer.Argument(help="Its share of the requests, as 5% or 0.05.")], wait: Wait = True
) -> None:
    """Let a version answer a share of the requests: entities stay with their version while the share stays."""
    model, name = split_version(version)
    _act("canary", model, name, share_of(share), wait=wait)


@commands.command()
def rollback(model: Annotated[str, typer.Argument(help="A model of the project.")], wait: Wait = True) -> None:
    """Make the champion before the one of now the champion again; once more goes one further back."""
    _act("rollback", model, None, None, wait=wait)


def _act(action: Action, model: str, version: str | None, share: float | None, *, wait: bool) -> None:
    at = _target()
    _known(at, model)
    record = asyncio.run(_deploying(at).act(model, action, version, share))
    aliases = _moving_aliases(at, model)
    for item in record.versions():
        console.print(f"{model} {item.version}: {item.role}{f', {item.share:.4g} of the requests' if item.share else ''}", highlight=False)
    if wait and "inference" in at.urls:
        _wait_served(at.urls["inference"], model, record)
    if aliases is not None:
        _told_aliases(aliases, model)


def _moving_aliases(at: Target, model: str) -> subprocess.Popen[str] | None:
    """A process that tells MLflow the roles, while inference is waited for; None where nothing of MLflow is installed."""
    if any(importlib.util.find_spec(package) is None for package in ("mlflow", "tidemill_training")):
        return None
    command = [sys.executable, "-m", "tidemill_training.aliases", model]
    return subprocess.Popen(command, env=at.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _told_aliases(aliases: subprocess.Popen[str], model: str) -> None:
    """What it said, or that MLflow takes too long. It decides nothing."""
    try:
        said = aliases.communicate(timeout=ALIAS_SECONDS)[0].strip()
    except subprocess.TimeoutExpired:
        aliases.kill()
        aliases.communicate()
        said = f"MLflow does not answer; its aliases of {model} are moved by the next change of roles or the next training"
    if said:
        console.print(said, markup=False, highlight=False, soft_wrap=True)


def _wait_served(url: str, model: str, record: DeploymentRecord) -> None:
    """Returns when inference serves just these versions. Raises TidemillError when it cannot, with its reason."""
    import httpx

    wanted = {item.version for item in record.versions()}
    deadline = time.monotonic() + SERVED_SECONDS
    reason = "it does not answer"
    with console.status("waiting for inference ..."):
        while time.monotonic() < deadline:
            try:
                shown = httpx.get(f"{url}/models/{model}", timeout=5, trust_env=False).json()
            except (httpx.HTTPError, ValueError) as error:
                reason = str(error) or type(error).__name__
            else:
                if {seat["version"] for seat in shown.get("serving", [])} == wanted:
                    console.print("inference serves it")
                    return
                reason = _why(shown, wanted)
                if wanted & shown.get("failures", {}).keys():
                    break
            time.sleep(0.2)
    raise TidemillError(
        f"deployed, but inference does not serve it: {reason}",
        mend=f"see: tidemill logs inference; or run: tidemill models rollback {model}",
    )


def _why(shown: dict[str, Any], wanted: set[str]) -> str:
    failures = [f"{version}: {reason}" for version, reason in shown.get("failures", {}).items() if version in wanted]
    return (
        "; ".join(failures)
        or shown.get("error")
        or f"it serves {', '.join(seat['version'] for seat in shown.get('serving', [])) or 'none'}"
    )


def _target() -> Target:
    need("pyarrow", "lake")
    return target()


def _deploying(at: Target) -> Deploying:
    from tidemill.operations.deploying import Deploying

    return Deploying(at.kafka_settings, at.project(), at.offline)


def _known(at: Target, model: str) -> str:
    if model not in at.declared.models:
        raise UnknownModel(model, list(at.declared.models))
    return model


def split_version(version: str) -> tuple[str, str]:
    """Model and version of MODEL@VERSION. Raises TidemillError."""
    model, at, name = version.partition("@")
    if not (model and at and name):
        raise TidemillError(f"{version!r} names no version", mend="write MODEL@VERSION; `tidemill models list` shows all")
    return model, name


def share_of(text: str) -> float:
    """A share from "5%" or "0.05". Raises TidemillError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise TidemillError(f"{text!r} is no share of the requests", mend="write 5% or 0.05; at most 100%")
    return share


def _manifests(at: Target, model: str) -> list[Manifest]:
    """Those of the stored versions; one that cannot be read is left out, and said."""
    from tidemill.models.artifact import stored_manifest, stored_versions

    found = []
    for version in stored_versions(at.offline, model):
        try:
            found.append(stored_manifest(at.offline, model, version)[0])
        except TidemillError as error:
            typer.echo(str(error), err=True)
    return found


def _manifest(at: Target, version: str) -> Manifest:
    from tidemill.models.artifact import stored_manifest

    model, name = split_version(version)
    return stored_manifest(at.offline, _known(at, model), name)[0]


def _roles(history: Sequence[DeploymentRecord]) -> dict[str, tuple[str, str]]:
    """Role and share of each version of the newest deployment."""
    if not history:
        return {}
    return {item.version: (item.role, f"{item.share:.4g}" if item.role != "shadow" else "") for item in history[-1].versions()}


def role_of(history: Sequence[DeploymentRecord], version: str) -> str:
    """The role of a version, and a challenger's share."""
    return " ".join(_roles(history).get(version, ("none", ""))).strip()


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _most_important(manifest: Manifest) -> list[str]:
    return sorted(manifest.feature_importance, key=lambda name: -abs(manifest.feature_importance[name]))[:_TOP]


def _importance(manifest: Manifest, name: str) -> str:
    return f"{manifest.feature_importance[name]:.4g}" if name in manifest.feature_importance else "-"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="models")
