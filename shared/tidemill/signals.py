"""What is said of a process that a signal ended."""

from __future__ import annotations

import signal
from collections.abc import Collection

NO_MEMORY = ("SIGKILL", "SIGABRT")


def signal_told(number: int, no_memory: Collection[str] = NO_MEMORY) -> str:
    """The name of a signal; after one of `no_memory`, what it mostly means."""
    name = signal.Signals(number).name
    return f"{name}; that is how the system ends what needs more memory than there is" if name in no_memory else name
