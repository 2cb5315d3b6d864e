"""Values that are no JSON, named by what they are: frames of a schema registry, compressed and binary formats, other encodings."""

from __future__ import annotations

from typing import NamedTuple

from tidemill.routing.framing import HEADER, head_of, schema_of


class Foreign(NamedTuple):
    """What a value is instead of JSON, and what to do about it. `framed`: by a schema registry."""

    name: str
    mend: str
    framed: bool = False


_DECOMPRESS = "publish it uncompressed, and let the producer compress its batches (compression.type): that is undone before we see it"
_AS_JSON = "publish JSON"
_AS_UTF8 = "write it as UTF-8"
_SET_REGISTRY = "set TIDEMILL_SCHEMA_REGISTRY of ingestion and the offline writer to the registry's address"
_FOUR_BYTES = "let them write ids as Confluent's do: apicurio.registry.as-confluent=true and apicurio.registry.use-id=contentId"
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("compressed with gzip", _DECOMPRESS),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", _DECOMPRESS),
    b"\x04\x22\x4d\x18": ("compressed with lz4", _DECOMPRESS),
    b"\x82SNAPPY\0": ("compressed with snappy", _DECOMPRESS),
    b"BZh": ("compressed with bzip2", _DECOMPRESS),
    b"\x78\x01": ("compressed with zlib", _DECOMPRESS),
    b"\x78\x9c": ("compressed with zlib", _DECOMPRESS),
    b"\x78\xda": ("compressed with zlib", _DECOMPRESS),
    b"Obj\x01": ("an Avro file", _AS_JSON),
    b"\xc3\x01": ("Avro with a schema's fingerprint", _AS_JSON),
    b"PAR1": ("a Parquet file", _AS_JSON),
    b"\xac\xed\0\x05": ("an object that Java serialized", _AS_JSON),
    b"\x80\x04\x95": ("an object that Python pickled", _AS_JSON),
    b"\x80\x05\x95": ("an object that Python pickled", _AS_JSON),
    b"\xff\xfe": ("encoded in UTF-16", _AS_UTF8),
    b"\xfe\xff": ("encoded in UTF-16", _AS_UTF8),
    b"{\0": ("encoded in UTF-16", _AS_UTF8),
    b"\0{\0": ("encoded in UTF-16", _AS_UTF8),
    b"eyJ": ("JSON in base64", "publish the JSON itself"),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def foreign(value: bytes) -> Foreign | None:
    """What a value is that is no JSON, if its bytes tell."""
    for begin, (name, mend) in _BEGINNINGS.items():
        if value.startswith(begin):
            return Foreign(name, mend)
    if len(value) > 5 and not value[0]:
        return framed(value)
    if len(value) > 1 and 0x81 <= value[0] <= 0x8F and 0xA1 <= value[1] <= 0xBF:
        return Foreign("probably MessagePack", _AS_JSON)
    if any(byte < 32 or byte > 126 for byte in value[:64]) and _is_protobuf(value):
        return Foreign("probably Protobuf", _AS_JSON)
    return None


def framed(value: bytes) -> Foreign:
    """What a frame holds, as far as its bytes tell."""
    head = head_of(value)
    schema, inner = schema_of(head), "JSON" if value[len(head) :].lstrip()[:1] == b"{" else "Avro or Protobuf"
    if schema is None:
        name = f"framed by Apicurio's serializers (schema id {int.from_bytes(head[1:], 'big')} in eight bytes, then {inner})"
        return Foreign(name, _FOUR_BYTES, framed=True)
    said = f"schema id {schema}" if isinstance(schema, int) else f"schema {schema} in the header {HEADER}"
    return Foreign(f"framed by a schema registry ({said}, then {inner})", _SET_REGISTRY, framed=True)


def _is_protobuf(value: bytes) -> bool:
    """Whether bytes are a message of Protobuf: fields up to the end, each with a number and a wire type."""
    at, fields = 0, 0
    while at < len(value):
        tag, at = _varint(value, at)
        kind, number = tag & 7, tag >> 3
        if not 0 < number < 1000 or at < 0:
            return False
        if kind == _VARINT:
            _, at = _varint(value, at)
        elif kind == _BYTES:
            length, at = _varint(value, at)
            at = at + length if at >= 0 else at
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            return False
        if not 0 <= at <= len(value):
            return False
        fields += 1
    return fields > 0


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """A number and the place after it; place -1 where there is none."""
    found = 0
    for shift in range(0, 70, 7):
        if at >= len(value):
            break
        found |= (value[at] & 127) << shift
        at += 1
        if value[at - 1] < 128:
            return found, at
    return 0, -1
