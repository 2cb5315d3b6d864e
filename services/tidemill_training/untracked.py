"""Versions that were stored while MLflow was away. Each has a note below the offline store until MLflow has the version."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import fs

from tidemill.errors import TidemillError

FOLDER = "untracked"


class Untracked(msgspec.Struct, frozen=True):
    """A version that MLflow does not have, the parameters of its run, and its alias."""

    model: str
    version: str
    params: dict[str, Any]
    alias: str = "champion"

    @property
    def path(self) -> str:
        """The path of its note below the offline store."""
        return f"{FOLDER}/{self.model}.{self.version}.json"


_DECODE = msgspec.json.Decoder(Untracked).decode


class Notes:
    """The notes below an offline store: a folder or an object-store URL. Every method raises OSError when it cannot be reached."""

    def __init__(self, offline_root: str) -> None:
        store, path = fs.FileSystem.from_uri(offline_root) if "://" in offline_root else (fs.LocalFileSystem(), offline_root)
        self._store = fs.SubTreeFileSystem(path, store)

    def add(self, untracked: Untracked) -> None:
        """Writes the note of a version."""
        self._store.create_dir(FOLDER, recursive=True)
        with self._store.open_output_stream(f"{untracked.path}.part") as stream:
            stream.write(pa.py_buffer(msgspec.json.encode(untracked)))
        self._store.move(f"{untracked.path}.part", untracked.path)

    def all(self) -> list[Untracked]:
        """The versions that MLflow still lacks, the oldest first. Raises TidemillError, which names a damaged note."""
        files = self._store.get_file_info(fs.FileSelector(FOLDER, allow_not_found=True))
        found = [self._read(file.path) for file in files if file.path.endswith(".json")]
        return sorted(found, key=lambda untracked: untracked.version)

    def remove(self, untracked: Untracked) -> None:
        """Deletes the note of a version that MLflow has now."""
        self._store.delete_file(untracked.path)

    def _read(self, path: str) -> Untracked:
        with self._store.open_input_stream(path) as stream:
            try:
                return _DECODE(stream.read())
            except msgspec.DecodeError as error:
                raise TidemillError(f"{path} below the offline store is damaged: {error}", mend="delete it") from error
