"""What a run of training writes down: what was asked, what each stage read and gave, and how it ended. Times are epoch ms."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from tidemill.records import Role

STAGES = ("set", "check", "split", "select", "search", "fit", "evaluate", "export", "report", "store", "deploy", "track")
"""The stages in the order in which they run. `select` and `search` run only where they are declared."""


class AskedRun(msgspec.Struct, frozen=True):
    """What the command asked for. `until_ms`: None for the moment at which the run begins; `labels`: the digest of a file of labels;
    `role`: of the version, if it is deployed; `declared`: the digest of the model and the views that are in force."""

    until_ms: int | None = None
    labels: str | None = None
    deploy: bool = True
    role: Role = "champion"
    declared: str = ""


class RunRecord(msgspec.Struct, frozen=True):
    """A run. `run`: its name, which is also that of the version it makes, after the moment `created`; `began`: by the clock; `until_ms`: what became known before it counts; `code`: the digest
    of the project's and tidemill's code; `packages`: the versions of what computes."""

    model: str
    run: str
    created: int
    began: int
    until_ms: int
    asked: AskedRun
    code: str
    packages: dict[str, str]


class StageRecord(msgspec.Struct, frozen=True):
    """A stage that is done. `key`: the digest of all that its output depends on; `inputs`: the digest of each output that it read; `output`:
    the file that it wrote (None: its output cannot be kept); `digest`: of the output; `said`: the result in words."""

    stage: str
    key: str
    inputs: dict[str, str]
    parameters: dict[str, Any]
    output: str | None
    digest: str
    began: int
    seconds: float
    said: str


class Began(msgspec.Struct, frozen=True):
    """A stage that began; without a later record of it, it was ended from outside."""

    stage: str
    at: int


class EndRecord(msgspec.Struct, frozen=True):
    """How a run ended. `said`: the version that it made, or why there is none."""

    result: Literal["trained", "refused"]
    said: str
    at: int


def run_name(created_ms: int) -> str:
    """The name of a run, and of the version that it makes: the moment of its beginning, to the millisecond."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(created_ms / 1000)) + f"{created_ms % 1000:03d}"
