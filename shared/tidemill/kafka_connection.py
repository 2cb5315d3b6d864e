"""A connection to a Kafka broker that says of itself that it was closed.

uvloop raises RuntimeError when something is written to a connection that was just reset; aiokafka 0.14 expects OSError there (aiokafka #1038).
What it does not expect ends the routine that fetches, or the one that keeps a consumer in its group, and nothing is read ever again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError


class Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's connection. What is written to a closed one raises KafkaConnectionError, after which another one is made."""

    def send(self, *args: Any, **options: Any) -> Any:
        """A request of Kafka's protocol."""
        return self._or_closed(super().send, *args, **options)

    def _send_sasl_token(self, *args: Any, **options: Any) -> Any:
        return self._or_closed(super()._send_sasl_token, *args, **options)

    def _or_closed(self, send: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return send(*args, **options)
        except KafkaError:  # it is a RuntimeError too
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
