"""`tidemill models card`: the card of a version, as HTML or JSON."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tidemill.cli.console import console
from tidemill.cli.roles import commands, role_of, split_version
from tidemill.cli.target import need, offline_target, target
from tidemill.errors import TidemillError
from tidemill.local.addresses import find


def card(
    version: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A stored version of a model.")],
    out: Annotated[Path | None, typer.Option(help="The file to write: .html or .json; by default JSON on the terminal.")] = None,
) -> None:
    """Write the card of a version: what it answers, what it was made of, how good it is, which inputs count, and its limits."""
    need("deltalake", "lake")
    from tidemill.models.artifact import stored_manifest
    from tidemill.training.card import card_of
    from tidemill.training.card_page import card_page
    from tidemill.training.made_with import stored_made_with

    if out is not None and out.suffix not in (".html", ".json"):
        raise TidemillError(f"{out} is neither .html nor .json", mend="name a file of one of these kinds")
    project, store = offline_target()
    name, wanted = split_version(version)
    manifest, sha256 = stored_manifest(store.url, name, wanted)
    found = card_of(manifest, sha256, project.models.get(name), stored_made_with(store.url, manifest), _role(name, wanted))
    content = msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"
    if out is None:
        typer.echo(content, nl=False)
        return
    try:
        out.write_text(card_page(found) if out.suffix == ".html" else content, encoding="utf-8")
    except OSError as error:
        raise TidemillError(f"{out} cannot be written: {error}", mend="name a file in a folder that exists and is yours") from error
    console.print(f"written to {out}", markup=False, highlight=False)


def _role(model: str, version: str) -> str:
    """The role that a version has now, where Kafka can tell."""
    from tidemill.operations.deploying import Deploying

    if not (find() or os.environ.get("KAFKA_BOOTSTRAP_SERVERS")):
        return "not known: no stack runs here"
    at = target()
    return role_of(asyncio.run(Deploying(at.kafka_settings, at.declared, at.offline).history()).get(model, []), version)


def register(_app: typer.Typer) -> None:
    """Add the command to those of versions."""
    commands.command()(card)
