"""The files of infra/ and docker-compose.yml, read once for the tests about them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tidemill.local.services import SERVICES, WISHED

ROOT = Path(__file__).parents[2]
NAMES = [service.name for service in (*SERVICES, *WISHED)]
IMAGES = [*NAMES, "training"]


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml."""
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def container(name: str) -> dict[str, Any]:
    """One service of docker-compose.yml."""
    return dict(compose()["services"][name])


@cache
def dockerfile() -> str:
    """The one Dockerfile, its continued lines joined."""
    return (ROOT / "infra" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")


@cache
def prometheus() -> dict[str, Any]:
    """Prometheus' configuration."""
    return dict(yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text()))


@cache
def alert_rules() -> list[dict[str, Any]]:
    """All alerting rules."""
    groups = yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def board() -> dict[str, Any]:
    """Grafana's board."""
    return dict(json.loads((ROOT / "infra" / "grafana" / "boards" / "tidemill.json").read_text()))


def provisioned(kind: str) -> dict[str, Any]:
    """The only entry of Grafana's provisioning of `datasources` or `dashboards`."""
    (file,) = (ROOT / "infra" / "grafana" / "provisioning" / kind).glob("*.yml")
    content = yaml.safe_load(file.read_text())
    (entry,) = content["providers" if kind == "dashboards" else kind]
    return dict(entry)


def expressions() -> dict[str, str]:
    """Every PromQL expression by where it stands: "alert X" or "panel X"."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in alert_rules()}
    for panel in board()["panels"]:
        found |= {f"panel {panel['title']} {target['refId']}": target["expr"] for target in panel.get("targets", ())}
    return found


def mounts(name: str) -> dict[str, str]:
    """Path in the container -> what is mounted there: a path of the checkout or the name of a volume."""
    found = {}
    for text in container(name).get("volumes", ()):
        source, target = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).split(":")[:2]
        found[target] = source
    return found
