"""docker-compose.yml and the Dockerfile: the same services, settings and addresses as the code and the local stack."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.infra.files import IMAGES, NAMES, ROOT, compose, container, dockerfile, mounts

from tidemill.local import kafka, valkey
from tidemill.local.services import SERVICES, WISHED
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.settings import HttpSettings, KafkaSettings, RedisSettings, SettingsGroup

SERVERS = {"kafka", "valkey", "prometheus", "grafana"}
EVERY = (*SERVICES, *WISHED)
BESIDE = {"retraining": {"BESIDE": "training"}}
"""Whose command an image runs beside its own."""


def test_every_service_is_there() -> None:
    """The services of the local stack, training, every command and the four servers: none is missing, none is left over."""
    assert set(compose()["services"]) == {*IMAGES, "tidemill", *SERVERS}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_from_its_package(name: str) -> None:
    """The build argument names a package that can be run, and the image is built from the root with the one Dockerfile."""
    build = container(name)["build"]
    assert build["args"] == {"SERVICE": name, **BESIDE.get(name, {})}
    assert (ROOT / build["context"] / build["dockerfile"]).read_text().startswith("#")
    assert (ROOT / "services" / f"tidemill_{name}" / "__main__.py").is_file()


def settings_of(name: str) -> type[SettingsGroup]:
    """The settings of a service: the one group that its module defines."""
    module = importlib.import_module(f"tidemill_{name}.settings")
    (group,) = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and issubclass(kind, SettingsGroup)
    ]
    return group


@pytest.mark.parametrize("name", IMAGES)
def test_the_environment_satisfies_the_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a service can be loaded from the environment that compose gives it, and from nothing else."""
    for variable in {**dict.fromkeys(("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL")), **container(name)["environment"]}:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in container(name)["environment"].items():
        if value is not None:  # one without a value is passed on where it is set
            monkeypatch.setenv(variable, value)
    settings_of(name).load()
    kafka_host, _, port = KafkaSettings.load().bootstrap_servers.partition(":")
    inside, outside = container(kafka_host)["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert inside == f"PLAINTEXT://{kafka_host}:{port}"
    assert container(kafka_host)["ports"] == [f"{outside.rpartition(':')[2]}:{outside.rpartition(':')[2]}"]
    assert urlsplit(RedisSettings.load().url).hostname == "valkey"
    assert HttpSettings.load().host == "0.0.0.0"  # noqa: S104 - inside a container


@pytest.mark.parametrize("name", IMAGES)
def test_folders_of_the_environment_are_mounted(name: str) -> None:
    """The offline store is a volume that all share; the project is a folder with a project in it."""
    environment, mounted = container(name)["environment"], mounts(name)
    assert mounted[environment["TIDEMILL_OFFLINE"]] in compose()["volumes"]
    assert (ROOT / mounted[environment["TIDEMILL_PROJECT"]] / "project.py").is_file()


def test_the_offline_volume_belongs_to_the_user() -> None:
    """A new volume takes its owner from the image's folder; without one it is root's, and no service could write."""
    (user,) = re.findall(r"^USER (\w+)$", dockerfile(), re.MULTILINE)
    folder = container("offline")["environment"]["TIDEMILL_OFFLINE"]
    assert re.search(rf"\binstall -d -o {user} (\S+ )*{re.escape(folder)}\b", dockerfile())


@pytest.mark.parametrize("service", EVERY, ids=NAMES)
def test_services_wait_for_the_servers_they_need(service: object) -> None:
    """What the local stack starts first is healthy first in compose too."""
    (found,) = [known for known in EVERY if known is service]
    assert set(found.needs) <= set(container(found.name)["depends_on"])
    for need in found.needs:
        assert container(found.name)["depends_on"][need] == {"condition": "service_healthy"}
        assert "healthcheck" in container(need)


@pytest.mark.parametrize("name", IMAGES)
def test_ports_are_one_number(name: str) -> None:
    """What a service listens on, what the image exposes and checks, and what is published are the same port."""
    port = container(name)["environment"]["TIDEMILL_PORT"]
    assert re.findall(r"^EXPOSE (\d+)$", dockerfile(), re.MULTILINE) == [port]
    ((checked, path),) = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", dockerfile())
    assert (checked, path in OpsApp.PATHS) == (port, True)
    assert {text.split(":")[1] for text in container(name).get("ports", [])} <= {port}


def test_published_ports_differ() -> None:
    """No two containers want the same port of the machine."""
    published = [text.split(":")[0] for name in compose()["services"] for text in container(name).get("ports", [])]
    assert len(published) == len(set(published)) > 3


def test_kafka_is_set_as_the_local_one(tmp_path: Path) -> None:
    """The same version, and every setting both name has the same value, apart from addresses and folders."""
    local = dict(line.split("=", 1) for line in kafka._PROPERTIES.splitlines())
    places = {"node.id", "listeners", "advertised.listeners", "controller.quorum.bootstrap.servers", "log.dirs"}
    given = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in container("kafka")["environment"].items()}
    shared = given.keys() & local.keys() - places
    assert {name: given[name] for name in shared} == {name: local[name] for name in shared}
    assert {"auto.create.topics.enable", "offsets.topic.replication.factor", "process.roles"} <= shared
    assert given["auto.create.topics.enable"] == "false"
    assert container("kafka")["image"].endswith(f":{kafka.VERSION}")
    assert given["log.dirs"].startswith(next(iter(mounts("kafka"))))


def test_valkey_keeps_everything() -> None:
    """Nothing is evicted, every write goes to the log; as in the local stack."""

    def options(command: list[str]) -> dict[str, str]:
        return {name: command[i + 1] for i, name in enumerate(command[:-1]) if name.startswith("--")}

    given, local = options(container("valkey")["command"]), options(valkey.command(1))
    kept = {"--maxmemory-policy": "noeviction", "--appendonly": "yes", "--save": ""}
    assert given.items() >= kept.items()
    assert {name: local[name] for name in kept if name in local} == {name: kept[name] for name in kept if name in local}
    assert "/data" in mounts("valkey")


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_mounted_files_exist(name: str) -> None:
    """What is mounted from the checkout is in the checkout; everything else is a declared volume."""
    for source in mounts(name).values():
        assert (ROOT / source).exists() if source.startswith(".") else source in compose()["volumes"]
