"""Asks a schema registry for schemas. A schema never changes under its id, so each is asked for once."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

import httpx
import msgspec

from tidemill.errors import RegistryUnavailable

SECONDS = 3.0
"""How long an answer may take. Whoever waits for a schema does nothing else meanwhile."""


class Schema(NamedTuple):
    """A schema. `kind`: AVRO, PROTOBUF or JSON; `references`: the schemas that its text names, by the names that it has for them."""

    kind: str
    text: str
    references: tuple[tuple[str, Schema], ...] = ()


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct, rename="camel"):
    schema: str
    schema_type: str | None = None
    references: list[_Reference] | None = None


_ACCEPTED = "application/vnd.schemaregistry.v1+json, application/json"
_ANSWER = msgspec.json.Decoder(_Answer)


class SchemaRegistry:
    """A registry at an address, `http://[user:password@]host:port`."""

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/")
        self._url = str(httpx.URL(url).copy_with(userinfo=b""))

    def schema(self, known: int | UUID) -> Schema | None:
        """The schema with this id or GUID; None if the registry has none. Raises RegistryUnavailable."""
        return self._ask(f"/schemas/{'ids' if isinstance(known, int) else 'guids'}/{known}")

    def _ask(self, path: str) -> Schema | None:
        try:
            answer = httpx.get(f"{self._base}{path}", headers={"Accept": _ACCEPTED}, timeout=SECONDS, trust_env=False)
        except httpx.HTTPError as error:
            raise self._unavailable(f"does not answer: {type(error).__name__} {error}".rstrip(" :")) from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise self._unavailable(f"answered {answer.status_code} to {path}: {answer.text[:200]}")
        try:
            found = _ANSWER.decode(answer.content)
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answered what is no schema to {path}: {error}") from None
        references = []
        for reference in found.references or ():
            below = self._ask(f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}")
            if below is None:
                raise self._unavailable(f"lacks version {reference.version} of {reference.subject}, which {path} names")
            references.append((reference.name, below))
        return Schema(found.schema_type or "AVRO", found.schema, tuple(references))

    def _unavailable(self, what: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the schema registry at {self._url} {what}", mend="start it, or correct TIDEMILL_SCHEMA_REGISTRY; nothing is lost"
        )
