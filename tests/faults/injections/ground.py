"""A rig with every part that injections need: proxies before both servers, hooked services, small disks for their data.

with ground(tmp_path / "stack", project, services=choose(["features"]), megabytes={"valkey": 64}) as rig:
    rig.stack.urls
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from redis import Redis
from tests.faults.injections.disks import small_disk
from tests.faults.injections.proxy import HOST, Proxy

from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.local.processes import assign_ports
from tidemill.local.services import SERVICES, LocalService
from tidemill.local.stack import External, Stack
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

ROOT = Path(__file__).parents[3]
HOOKED = "tests.faults.injections.hooked"
_THIRD_LISTENER = """
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},PROXIED://{host}:{proxied}
advertised.listeners=PLAINTEXT://{host}:{port},PROXIED://{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


@dataclass(frozen=True)
class Ground:
    """A running system that any injection may strike; it is a `Rig`."""

    home: Path
    stack: Stack
    redis: Proxy
    kafka: Proxy
    orders: Path

    @property
    def redis_url(self) -> str:
        """Valkey as the services see it: whichever is the primary now."""
        return f"redis://{self.redis.address}/0"

    def store(self) -> Redis:
        """A client of the primary."""
        return Redis.from_url(self.redis_url)


def hooked(services: Sequence[LocalService]) -> tuple[LocalService, ...]:
    """The same services, under our orders."""
    return tuple(replace(service, module=HOOKED) for service in services)


@contextmanager
def ground(
    home: Path,
    project: Path,
    *,
    services: Sequence[LocalService] = SERVICES,
    servers: Sequence[str] | None = None,
    environment: Mapping[str, str] = {},
    megabytes: Mapping[str, int] = {},
) -> Iterator[Ground]:
    """Start everything, with the project's topics, and stop it in the end. `megabytes`: which of kafka, valkey, offline get a small disk."""
    with ExitStack() as stack:
        for name, size in megabytes.items():
            stack.enter_context(small_disk(home / name, size))
        to_redis, to_kafka = stack.enter_context(Proxy()), stack.enter_context(Proxy())
        orders = home / "orders"
        system = Stack(
            home,
            str(project),
            services=hooked(services),
            servers=servers,
            external=External(),
            environment={**_environment(to_redis, to_kafka, orders), **environment},
            prepare=lambda started: _lead(started, home, to_redis, to_kafka, project),
            timeout_seconds=300,
        )
        yield Ground(home, stack.enter_context(system), to_redis, to_kafka, orders)


def _environment(to_redis: Proxy, to_kafka: Proxy, orders: Path) -> dict[str, str]:
    paths = [str(ROOT / "shared"), str(ROOT / "services"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "REDIS_URL": f"redis://{to_redis.address}/0",
        "KAFKA_BOOTSTRAP_SERVERS": to_kafka.address,
        "HOOKED_ORDERS": str(orders),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _lead(stack: Stack, home: Path, to_redis: Proxy, to_kafka: Proxy, project: Path) -> None:
    """Lead the proxies to the servers, and make the topics, before any service starts."""
    if stack.redis_url:
        to_redis.lead_to(HOST, int(stack.redis_url.rpartition(":")[2].partition("/")[0]))
    if stack.kafka:
        to_kafka.lead_to(HOST, _listen_for(stack, home, to_kafka))
        asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(load_project(project))))


def _listen_for(stack: Stack, home: Path, proxy: Proxy) -> int:
    """Give the broker a listener that names the proxy to its clients, and return its port."""
    ports = assign_ports(home, ["kafka-proxied"], {})
    properties = home / "kafka" / "server.properties"
    kept = [line for line in properties.read_text().splitlines() if not line.startswith(("listeners=", "advertised.listeners="))]
    controller = next(line.rpartition(":")[2] for line in kept if line.startswith("controller.quorum.bootstrap.servers="))
    more = _THIRD_LISTENER.format(
        host=HOST, port=stack.kafka.rpartition(":")[2], controller=controller, proxied=ports["kafka-proxied"], proxy=proxy.address
    )
    properties.write_text("\n".join(kept) + more)
    stack.restart("kafka")
    return ports["kafka-proxied"]
