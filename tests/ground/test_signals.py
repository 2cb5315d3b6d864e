"""What is said of a process that a signal ended."""

from __future__ import annotations

import signal

from tidemill.signals import signal_told


def test_what_a_signal_mostly_means() -> None:
    """Its name; of those by which the system ends what takes too much memory, that as well."""
    memory = "; that is how the system ends what needs more memory than there is"
    assert [signal_told(number) for number in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)] == [
        "SIGKILL" + memory,
        "SIGABRT" + memory,
        "SIGSEGV",
    ]
    assert signal_told(signal.SIGSEGV, ("SIGSEGV",)) == "SIGSEGV" + memory
