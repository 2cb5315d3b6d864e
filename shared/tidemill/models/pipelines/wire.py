"""What a service and its worker say to each other, over one socket.

A file, which the worker inherits, has two blocks: `Loading` and the pickle. The worker answers with one block: empty, or why it cannot load.
Then each question is a head and float32 rows; the answer is a block for each row, or one for all of them: a byte that says what it is, then
float32 numbers or a text. A block is its length and its bytes.
"""

from __future__ import annotations

import socket
import struct
from typing import BinaryIO, Final

import msgspec

QUESTION: Final = struct.Struct("<BI")
"""How the rows are to be answered, and how many there are."""
EACH, WHOLE = 0, 1
"""Each row by a call of its own; all rows by one call."""
ANSWER, FAILS, NO_MEMORY = 0, 1, 2
"""Numbers; the pipeline fails on these rows; there is no memory for them."""
_LENGTH: Final = struct.Struct("<Q")


class LoadedColumn(msgspec.Struct, frozen=True):
    """An input of the model, as `frame` wants it."""

    name: str
    is_category: bool
    categories: list[str]


class Loading(msgspec.Struct, frozen=True):
    """What a worker must know. `frame`: whether the pipeline gets a data frame; `output`: as in a manifest; `width`: numbers in an answer;
    `memory_mb`: how much it may map; `module`: under which name the pickle knows the project's module, and `project`: the project's file ("":
    the pickle needs none)."""

    columns: list[LoadedColumn]
    frame: bool
    output: str
    width: int
    memory_mb: int
    module: str = ""
    project: str = ""


def write_block(file: BinaryIO, content: bytes) -> None:
    """Appends a block to a file."""
    file.write(_LENGTH.pack(len(content)))
    file.write(content)


def read_block(file: BinaryIO) -> bytes:
    """The next block of a file."""
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    return file.read(length)


def send_block(connection: socket.socket, content: bytes) -> None:
    """Sends a block. Raises OSError."""
    connection.sendall(_LENGTH.pack(len(content)) + content)


def received_block(connection: socket.socket) -> bytes:
    """The next block. Raises EOFError when the other side has closed, and OSError, TimeoutError among them."""
    (length,) = _LENGTH.unpack(received(connection, _LENGTH.size))
    return received(connection, length)


def received(connection: socket.socket, length: int) -> bytes:
    """So many bytes. Raises as `received_block`."""
    found = bytearray(length)
    place, view = 0, memoryview(found)
    while place < length:
        count = connection.recv_into(view[place:])
        if not count:
            raise EOFError("the other side has closed")
        place += count
    return bytes(found)
