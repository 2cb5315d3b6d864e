"""Feature computation without what makes it exact, to measure what that costs: no checksum of records, no comparison of fences.

Values are written by a plain MSET, and the fence beside them only so that progress can be seen. Run as a service: python -m benchmarks.unfenced
"""

from __future__ import annotations

from collections.abc import Mapping

from tidemill.kernel import fold
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import OnlineWriter
from tidemill.runtime.entry import service_main
from tidemill_features.__main__ import main


class Unfenced(OnlineWriter):
    """A store that takes whatever comes."""

    async def apply(
        self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
    ) -> bool:
        """Writes, and compares nothing."""
        prefix = state_key(self._project, log, partition, b"")
        pairs = [part for entity, value in values.items() for part in (prefix + entity, value)]
        await self._link.call(b"MSET", *pairs, fence_key(self._project, log, partition), fence)  # type: ignore[arg-type]  # short values are whole
        return True


if __name__ == "__main__":
    fold.proof_of = lambda key, value: 0  # type: ignore[attr-defined]
    OnlineWriter.apply = Unfenced.apply  # type: ignore[method-assign, assignment]
    raise SystemExit(service_main("features", main))
