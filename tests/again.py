"""A run of pytest in which a test that fails beside others is asked once more, alone.

    python -m tests.again ARGUMENTS OF PYTEST

Six thousand tests, a third of them with processes and servers, share two processors: one that hangs on who is first fails once in thousands of runs, and says
nothing of the change that it stops. Such a test is named at the end, with its first failure above, so that it is mended: it has a race. What is never asked again:
more than a few, and the folders whose tests look for values that are lost, doubled or different. There the one failure in a thousand is what is looked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

FEW = 3
ONCE = ("audit", "cluster", "event_time", "faults", "features", "golden", "kernel", "offline", "proof", "simulation", "streams", "verify")


class Failed:
    """A plugin that remembers which tests failed, in the order in which they did."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test has ended."""
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def may_be_asked(names: Sequence[str]) -> bool:
    """Whether all of these tests may be asked again."""
    return 0 < len(names) <= FEW and not any(name.split("/")[1] in ONCE for name in names)


def main(arguments: Sequence[str]) -> int:
    """Runs them, and returns pytest's exit code: of the tests that failed and were asked again, that of the second run."""
    failed = Failed()
    code = int(pytest.main([*arguments], plugins=[failed]))
    if code != pytest.ExitCode.TESTS_FAILED or not may_be_asked(failed.names):
        return code
    print(f"asked once more, alone: {', '.join(failed.names)}", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", "-q", *failed.names], check=False).returncode
    if again == 0:
        print(f"racy: passed alone, and failed beside others as told above: {', '.join(failed.names)}", flush=True)
    return again


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
