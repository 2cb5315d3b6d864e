"""Features as feature serving answers them over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx

from tidemill.declarations import FeatureView
from tidemill.errors import Unavailable
from tidemill.verify.checks import Served
from tidemill.verify.entities import parts_of
from tidemill.verify.meaning import Meaning
from tidemill.verify.sql import Value

_ROWS = 500
"""How many entities one request asks for; a body must stay below 1 MiB."""


def over_http(url: str) -> Served:
    """Asks the service at a URL. Raises Unavailable when it does not answer, or not with 200."""

    def served(view: FeatureView, entities: Sequence[str], at_ms: int) -> list[Mapping[str, tuple[str, Value | None]]]:
        found: list[Mapping[str, tuple[str, Value | None]]] = []
        for start in range(0, len(entities), _ROWS):
            found += _ask(url, view, entities[start : start + _ROWS], at_ms)
        return found

    return served


def _ask(url: str, view: FeatureView, entities: Sequence[str], at_ms: int) -> list[Mapping[str, tuple[str, Value | None]]]:
    features = [feature.name for feature in Meaning(view).features]
    parts, whole = (
        [parts_of(entity, len(view.key.fields)) for entity in entities],
        [view.source.base_type(name) is int for name in view.key.fields],
    )
    body = {
        "features": [f"{view.name}:{feature}" for feature in features],
        "entities": {
            name: [int(part[place]) if whole[place] else part[place] for part in parts] for place, name in enumerate(view.key.names)
        },
        "as_of": at_ms,
    }
    try:
        answer = httpx.post(f"{url}/get-online-features", json=body, timeout=30, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"feature serving at {url} does not answer: {error}", mend="start it, or set TIDEMILL_SERVING_URL") from error
    if answer.status_code != httpx.codes.OK:
        raise Unavailable(f"feature serving at {url} answers {answer.status_code}: {answer.text[:500]}", mend="see its /health/ready")
    columns = dict(zip(answer.json()["metadata"]["feature_names"], answer.json()["results"], strict=True))
    told = [columns[feature] for feature in features]
    return [
        {feature: (column["statuses"][row], column["values"][row]) for feature, column in zip(features, told, strict=True)}
        for row in range(len(entities))
    ]
