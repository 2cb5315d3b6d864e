"""Protobuf: a registry has the text of a .proto file, which Google's compiler turns into descriptors, or the descriptor of the file in base64,
as Python's serializer registers it. Messages become plain dicts.

Fields have their names of the file. Enums are names; Timestamp and Duration are texts, wrappers their value; 64-bit numbers are numbers. A
field with presence that is not set is absent; one without presence has its default.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc_tools
from google.protobuf import (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from tidemill.registry.client import Schema
from tidemill.registry.frames import Decode

_MAIN = "tidemill_registry_main.proto"
_COMPILE_SECONDS = 30
_GOOGLES = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
}
_WRAPPERS = {
    f"google.protobuf.{kind}Value" for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}


def protobuf_decoder(schema: Schema) -> Decode:
    """Raises ValueError when the schema cannot be compiled."""
    files = _described(schema) or _compiled(schema)
    pool = DescriptorPool()
    try:
        for file in files:
            pool.Add(file)
        pool.FindFileByName(_MAIN)
    except (TypeError, KeyError) as error:
        raise ValueError(f"its files do not fit together: {error}") from None
    main = files[-1]
    classes: dict[tuple[int, ...], type[Message]] = {}

    def decode(body: bytes) -> Any:
        indexes, begin = _indexes(body)
        kind = classes.get(indexes)
        if kind is None:
            descriptor = pool.FindMessageTypeByName(_name(main, indexes))
            kind = classes[indexes] = message_factory.GetMessageClass(descriptor)
        message = kind()
        try:
            message.ParseFromString(body[begin:])
        except DecodeError as error:
            raise ValueError(str(error)) from None
        return _plain(message)

    return decode


def _described(schema: Schema) -> list[FileDescriptorProto]:
    """The files of a schema that is given as a descriptor, those that others use first; none if it is given as text."""
    found: dict[str, FileDescriptorProto] = {}
    for name, text in [*_texts(schema), (_MAIN, schema.text)]:
        try:
            file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        except (ValueError, DecodeError):
            return []
        file.name = name
        found = {**_well_known(file), **found, name: file}
    return [*found.values()]


def _well_known(file: FileDescriptorProto) -> dict[str, FileDescriptorProto]:
    """Google's own files that a file uses."""
    found = {}
    for name in file.dependency:
        if name in _GOOGLES:
            found[name] = FileDescriptorProto.FromString(_GOOGLES[name])
    return found


def _compiled(schema: Schema) -> list[FileDescriptorProto]:
    with TemporaryDirectory() as folder:
        root, out = Path(folder), Path(folder, "out")
        for name, text in [*_texts(schema), (_MAIN, schema.text)]:
            path = (root / name).resolve()
            if not path.is_relative_to(root.resolve()):
                raise ValueError(f"it names a file {name!r} outside its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        own = str(files(grpc_tools) / "_proto")
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{root}",
            f"-I{own}",
            "--include_imports",
            f"--descriptor_set_out={out}",
            _MAIN,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        if done.returncode:
            raise ValueError(f"it is no .proto file that can be compiled: {done.stderr.strip()[:300]}")
        return [*FileDescriptorSet.FromString(out.read_bytes()).file]


def _texts(schema: Schema) -> Iterator[tuple[str, str]]:
    """The files that a schema imports, those that others use first."""
    for name, below in schema.references:
        yield from _texts(below)
        yield name, below.text


def _indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of the file it is, as the places on the way down, and where it begins. A single 0 means the first message."""
    count, at = _signed(body, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= len(body):
        raise ValueError(f"a message cannot lie {count} levels deep")
    found = []
    for _ in range(count):
        index, at = _signed(body, at)
        found.append(index)
    return tuple(found), at


def _signed(body: bytes, at: int) -> tuple[int, int]:
    """A zigzag number and the place after it."""
    found = shift = 0
    while True:
        if at >= len(body) or shift > 63:
            raise ValueError("it ends within the place of its message")
        byte = body[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (found >> 1) ^ -(found & 1), at


def _name(file: FileDescriptorProto, indexes: tuple[int, ...]) -> str:
    """The full name of a message."""
    found: FileDescriptorProto | DescriptorProto = file
    names = [file.package] if file.package else []
    for index in indexes:
        messages = found.message_type if isinstance(found, FileDescriptorProto) else found.nested_type
        if not 0 <= index < len(messages):
            raise ValueError(f"the schema has no message at {list(indexes)}")
        found = messages[index]
        names.append(found.name)
    return ".".join(names)


def _plain(message: Message) -> Any:
    """A message as what JSON can hold."""
    kind: Descriptor = message.DESCRIPTOR
    if kind.full_name in _WRAPPERS:
        return _scalar(kind.fields_by_name["value"], message.value)
    if kind.full_name.startswith("google.protobuf."):
        return json_format.MessageToDict(message)
    found: dict[str, Any] = {}
    for field in kind.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            held = field.message_type.fields_by_name["value"]
            found[field.name] = {_key(key): _value(held, value[key]) for key in value}
        elif field.is_repeated:
            found[field.name] = [_value(field, part) for part in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _value(field, value)
    return found


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _value(field: FieldDescriptor, value: Any) -> Any:
    return _plain(value) if field.message_type is not None else _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
