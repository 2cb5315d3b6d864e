"""The services of the local stack: the one place where they are listed."""

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tidemill.errors import NotFound


class UnknownLocalService(NotFound):
    """No such service is in the table."""

    kind = "service"


@dataclass(frozen=True)
class LocalService:
    """One service: started as ``python -m MODULE``, ready when ``/health/ready`` answers 200.

    `nice`: on one machine, services that answer requests go first, then feature computation, then services that store and watch. All start
    at full speed, and let others go first once they run: see `runtime.settings.PrioritySettings`.
    """

    name: str
    module: str
    needs: tuple[str, ...]  # servers that must answer before it starts: kafka, valkey
    nice: int = 0


SERVICES = (
    LocalService("ingestion", "tidemill_ingestion", ("kafka",)),
    LocalService("features", "tidemill_features", ("kafka", "valkey"), nice=5),
    LocalService("offline", "tidemill_offline", ("kafka",), nice=10),
    LocalService("serving", "tidemill_serving", ("kafka", "valkey")),
    LocalService("inference", "tidemill_inference", ("kafka", "valkey")),
    LocalService("predlog", "tidemill_predlog", ("kafka",), nice=10),
    LocalService("drift", "tidemill_drift", ("kafka",), nice=10),
    LocalService("audit", "tidemill_audit", ("kafka", "valkey"), nice=10),
)

WISHED = (LocalService("retraining", "tidemill_retraining", ("kafka",), nice=10),)
"""Services that run only where the project wants them, or a person does."""


def choose(names: Sequence[str], wished: Sequence[str] = ()) -> tuple[LocalService, ...]:
    """Return the services of these names; when none is given, all that always run and those that are `wished`. Raises `UnknownLocalService` for any other name."""
    every = (*SERVICES, *WISHED)
    known = [service.name for service in every]
    for name in names:
        if name not in known:
            raise UnknownLocalService(name, known)
    chosen = names or [*(service.name for service in SERVICES), *wished]
    return tuple(service for service in every if service.name in chosen)


def not_ready(url: str) -> str | None:
    """Return why the service at this address is not ready yet, or None when it is."""
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=1, trust_env=False, verify=False)  # noqa: S501 - plain HTTP; loading certificates takes 30 ms
    except httpx.HTTPError as error:
        return f"{url}/health/ready: {error}"
    return None if answer.status_code == httpx.codes.OK else f"{url}/health/ready answers {answer.status_code}: {answer.text[:500]}"
