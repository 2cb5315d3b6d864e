"""Opens frames (see `routing.framing`): the event after the id of its schema, in the format of the schema."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

import msgspec

from tidemill.errors import MissingExtra
from tidemill.registry.client import Schema, SchemaRegistry
from tidemill.registry.settings import RegistrySettings
from tidemill.routing.framing import head_of, schema_of
from tidemill.routing.opening import Frames, frame_of, is_json, unframed
from tidemill.routing.refusals import Reason, Refused

Decode = Callable[[bytes], Any]
"""From the bytes after a frame's id to what JSON can hold. Raises ValueError."""

_ABSENT_SECONDS = 10.0
_JSON = msgspec.json.Encoder(decimal_format="number")


@cache
def configured_frames() -> Frames:
    """How this process opens frames, by its environment; schemas are remembered. Raises SettingsError."""
    return registry_frames(RegistrySettings.load())


def registry_frames(settings: RegistrySettings) -> Frames:
    """How frames are opened with these settings. Without a registry only JSON can be read."""
    return unframed if settings.url is None else RegistryFrames(SchemaRegistry(settings.url))


class RegistryFrames:
    """Opens frames with the schemas of a registry."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._decoders: dict[bytes, Decode] = {}
        self._absent: dict[bytes, float] = {}

    def __call__(self, value: bytes) -> bytes:
        """The JSON of a framed event. Raises Refused when the value is not what its schema says, or the registry lacks the schema; RegistryUnavailable."""
        head = head_of(value)
        body = value[len(head) :]
        if is_json(body):
            return body
        found = frame_of(value)  # refuses what is none
        known = schema_of(head)
        if known is None:
            raise Refused(Reason.FRAMED, f"the value is {found.name}: {found.mend}")
        decode = self._decoders.get(head) or self._learn(head, known)
        try:
            event = decode(body)
            _check_finite(event, "")
            return _JSON.encode(event)
        except ValueError as error:
            raise Refused(Reason.ENCODED, f"the value is not what schema {known} of the registry says: {error}") from None

    def _learn(self, head: bytes, known: int | UUID) -> Decode:
        if time.monotonic() < self._absent.get(head, 0.0):
            raise _unknown(known)
        schema = self._registry.schema(known)
        if schema is None:
            self._absent[head] = time.monotonic() + _ABSENT_SECONDS  # so that a stream of such records does not ask for each
            raise _unknown(known)
        try:
            found = _decoder(schema)
        except ValueError as error:
            raise Refused(Reason.FRAMED, f"schema {known} of the registry cannot be used: {error}") from None
        self._decoders[head] = found
        return found


def _decoder(schema: Schema) -> Decode:
    """Raises ValueError for a schema that cannot be used, MissingExtra."""
    try:
        if schema.kind == "AVRO":
            from tidemill.registry.avro import avro_decoder  # noqa: PLC0415 - from the extra `registry`

            return avro_decoder(schema)
        if schema.kind == "PROTOBUF":
            from tidemill.registry.protobuf import protobuf_decoder  # noqa: PLC0415 - from the extra `registry`

            return protobuf_decoder(schema)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "registry") from error
    if schema.kind == "JSON":
        return _no_json
    raise ValueError(f"its type is {schema.kind}; AVRO, PROTOBUF and JSON are known")


def _no_json(_body: bytes) -> Any:
    raise ValueError("it is no JSON object")


def _unknown(known: int | UUID) -> Refused:
    return Refused(
        Reason.FRAMED,
        f"the value is framed by a schema registry, and ours lacks schema {known}: set TIDEMILL_SCHEMA_REGISTRY to the publisher's",
    )


def _check_finite(found: Any, name: str) -> None:
    """JSON has no NaN and no Infinity. Raises Refused, which names the field."""
    if isinstance(found, dict):
        for key, value in found.items():
            _check_finite(value, f"{name}.{key}" if name else key)
    elif isinstance(found, list):
        for value in found:
            _check_finite(value, name)
    elif isinstance(found, float) and not math.isfinite(found):
        raise Refused(Reason.NOT_FINITE, f"{name} is {found}; write null, or leave the event out", name)
