"""Files of the offline store that are no tables: read whole, and written whole or not at all."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import fs


def store_of(root: str) -> fs.FileSystem:
    """The files below a folder or an object-store URL."""
    store, path = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
    return fs.SubTreeFileSystem(path, store)


def exists(store: fs.FileSystem, path: str) -> bool:
    """Whether there is such a file."""
    return bool(store.get_file_info(path).type == fs.FileType.File)


def read_file(store: fs.FileSystem, path: str) -> bytes:
    """All of a file. Raises OSError."""
    with store.open_input_stream(path) as stream:
        return bytes(stream.read())


def write_file(store: fs.FileSystem, path: str, content: bytes) -> None:
    """Writes a file whole or not at all: under another name first, then moved."""
    with store.open_output_stream(f"{path}.part") as stream:
        stream.write(pa.py_buffer(content))
    store.move(f"{path}.part", path)
