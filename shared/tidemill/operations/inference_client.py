"""Questions to inference, thousands in a row: one connection of the standard library, a fifth of what a general client costs for each."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tidemill.errors import Unavailable

TIMEOUT_SECONDS = 60
_HEADERS = {"Content-Type": "application/json"}


class InferenceClient:
    """A connection to `url`, opened with the first question, and again after one that failed. Ask one question at a time."""

    def __init__(self, url: str) -> None:
        self._url, parts = url, urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        self._path = parts.path.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and content of the answer. Raises Unavailable when there is none."""
        try:
            self._connection.request("POST", self._path + path, body, _HEADERS)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise Unavailable(
                f"inference at {self._url} does not answer: {type(error).__name__} {error}".rstrip(), mend="start it"
            ) from error
