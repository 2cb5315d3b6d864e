"""The command line, killed by itself with SIGKILL at its Nth write to Kafka: python -m tests.operations.repartition.dying N repartition VIEW."""

import os
import signal
import sys
from typing import Any

from tidemill.cli import main
from tidemill.kafka.waves import send_wave
from tidemill.operations.repartition import job


def dying(writes: int) -> Any:
    """A `send_wave` that handles so many writes and dies once the next one is on its way."""
    left = [writes]

    async def send(*arguments: Any) -> Any:
        answer = await send_wave(*arguments)
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return send


if __name__ == "__main__":
    vars(job).update(WAVE_RECORDS=60, send_wave=dying(int(sys.argv.pop(1))))
    main()
