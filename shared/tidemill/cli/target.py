"""What a command works on: the project, and the addresses of the running stack or of the environment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from tidemill.declarations.project import Project, load_project
from tidemill.errors import DeclarationError, MissingExtra, ProjectError, TidemillError
from tidemill.local.addresses import Addresses, find, home_folder

if TYPE_CHECKING:
    from tidemill.catalogue.definitions import Definitions
    from tidemill.offline.store import OfflineStore
    from tidemill.runtime.settings import KafkaSettings


@dataclass(frozen=True)
class Target:
    """A project and where its servers are. `declared`: what its file says; `spec`: what it was loaded from; `urls`: the services by name."""

    declared: Project
    spec: str
    kafka: str
    redis_url: str
    offline: str
    urls: dict[str, str]

    @property
    def kafka_settings(self) -> KafkaSettings:
        """Of the environment, with this stack's brokers."""
        from tidemill.runtime.settings import KafkaSettings

        return KafkaSettings(bootstrap_servers=self.kafka)

    def project(self) -> Project:
        """What is in force: the catalogue's, before its first record the file's. It says so when the file differs.

        Raises KafkaUnavailable.
        """
        from tidemill.streams.following import read_in_force

        now = asyncio.run(read_in_force(self.kafka_settings, self.declared))
        tell_unapplied(now.definitions, self.declared)
        return now.project

    @property
    def store(self) -> OfflineStore:
        """The offline store. Raises MissingExtra."""
        need("deltalake", "lake")
        from tidemill.offline.store import OfflineStore

        return OfflineStore(self.offline)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a service or job of this stack."""
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis_url,
            "TIDEMILL_OFFLINE": self.offline,
            "TIDEMILL_PROJECT": self.spec,
        }

    def url(self, service: str) -> str:
        """Address of a service. Raises TidemillError when it is not known."""
        if service not in self.urls:
            raise TidemillError(
                f"the address of {service} is not known", mend=f"start the stack with `tidemill up`, or set TIDEMILL_{service.upper()}_URL"
            )
        return self.urls[service]


def tell_unapplied(definitions: Definitions, declared: Project) -> None:
    """A line on the error stream when the project's file is not what is in force."""
    from tidemill.catalogue.plan import unapplied

    try:
        differs = bool(unapplied(definitions, declared))
    except DeclarationError:
        differs = True
    if differs:
        typer.echo("project.py differs from what is in force: run tidemill plan", err=True)


def target() -> Target:
    """The running stack of this folder, overridden by the environment. Raises TidemillError naming what is missing."""
    running = find()
    spec = _project(running)
    urls = dict(running.urls) if running else {}
    urls |= {name[9:-4].lower(): value for name, value in os.environ.items() if name.startswith("TIDEMILL_") and name.endswith("_URL")}
    return Target(
        load_project(spec),
        spec,
        _address("KAFKA_BOOTSTRAP_SERVERS", running.kafka if running else None),
        _address("REDIS_URL", running.redis_url if running else None),
        _address("TIDEMILL_OFFLINE", running.offline if running else None),
        urls,
    )


@contextlib.contextmanager
def servers() -> Iterator[Target]:
    """The target; Kafka and Valkey of the local stack run meanwhile, if no servers run here and none are named."""
    spec = os.environ.get("TIDEMILL_PROJECT")
    if spec is None or find() is not None or "KAFKA_BOOTSTRAP_SERVERS" in os.environ:
        yield target()
        return
    need("supervisor", "local")
    from tidemill.local.stack import Stack

    with Stack(None, spec, services=(), servers=("kafka", "valkey")):
        yield target()


def offline_target() -> tuple[Project, OfflineStore]:
    """The project and its offline store: that of the environment, of the running stack, or the one that a stack of this folder will have.

    Where Kafka runs the project is what is in force. Where it does not, nobody can know: it is what the file declares, and that is said if
    a stack ran here before. Raises TidemillError naming what is missing, KafkaUnavailable.
    """
    need("deltalake", "lake")
    from tidemill.offline.store import OfflineStore

    running = find()
    store = OfflineStore(os.environ.get("TIDEMILL_OFFLINE") or (running.offline if running else None) or home_folder() / "offline")
    if running or os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return target().project(), store
    if (home_folder() / "kafka").exists():
        typer.echo("no stack runs here, so what is in force is not known: project.py is used as it is", err=True)
    return load_project(_project(running)), store


def project_spec() -> str:
    """The project's folder, file or module, of the environment or of the running stack. Raises ProjectError."""
    return _project(find())


def _project(running: Addresses | None) -> str:
    spec = os.environ.get("TIDEMILL_PROJECT") or (running.project if running else None)
    if not spec:
        raise ProjectError("no project is named", mend="pass --project, set TIDEMILL_PROJECT, or start a stack with `tidemill up`")
    return spec


def _address(variable: str, found: str | None) -> str:
    value = os.environ.get(variable) or found
    if not value:
        raise TidemillError(f"no stack runs here and {variable} is not set", mend=f"run `tidemill up`, or set {variable}")
    return value


def need(package: str, extra: str) -> None:
    """Raises MissingExtra when a package is not installed that only an extra installs."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(package, extra)
