"""Redis keys of a view: one fence for each partition, one value for each entity, all of a partition in one cluster slot."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from tidemill.names import LogName

_TAG_BYTES = 6
STATE_KEYS = b"{" + b"?" * len(base64.urlsafe_b64encode(bytes(_TAG_BYTES))) + b"}*"
"""A pattern for SCAN and KEYS. Every `state_key` of every project matches it, and no fence does."""


@cache
def hash_tag(project: str, log: LogName, partition: int) -> bytes:
    """The hash tag in all Redis keys of one partition of a log, so they share a cluster slot. Ten bytes, since every key repeats it."""
    digest = hashlib.blake2b(f"{project}.{log}:{partition}".encode(), digest_size=_TAG_BYTES).digest()
    return b"{%s}" % base64.urlsafe_b64encode(digest)


def fence_key(project: str, log: LogName, partition: int) -> bytes:
    """Redis key of a fence."""
    return b"fence" + hash_tag(project, log, partition)


def state_key(project: str, log: LogName, partition: int, entity: bytes) -> bytes:
    """Redis key of an entity's tiles."""
    return hash_tag(project, log, partition) + entity
