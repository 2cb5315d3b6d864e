"""What a command works on: the project, and the addresses of the running stack or of the environment."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemill.declarations.project import Project, load_project
from tidemill.errors import MissingExtra, ProjectError, TidemillError
from tidemill.local.addresses import Addresses, find, home_folder

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore


@dataclass(frozen=True)
class Target:
    """A project and where its servers are. `spec` is what the project was loaded from; `urls` the services by name."""

    project: Project
    spec: str
    kafka: str
    redis_url: str
    offline: str
    urls: dict[str, str]

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

    Raises TidemillError naming what is missing.
    """
    need("deltalake", "lake")
    from tidemill.offline.store import OfflineStore

    running = find()
    found = os.environ.get("TIDEMILL_OFFLINE") or (running.offline if running else None)
    return load_project(_project(running)), OfflineStore(found or home_folder() / "offline")


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
