"""What the tests cost: a plugin that writes down what each took, and a command that sets it beside the budgets in README.md.

    pytest --times FILE ...          a line is added to the file for each test
    python -m tests.times FILE       the slowest twenty, and each folder beside its budget

Times are told, never asserted. A test's processor seconds are those of its own process and of the child processes that ended in it.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent
SLOWEST = 20


class Cost(NamedTuple):
    """Seconds on the clock, and of processors."""

    seconds: float
    processor: float

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.seconds + other.seconds, self.processor + other.processor)


class Times:
    """The plugin. Where tests run it measures; where reports arrive (with xdist that is another process) it writes."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._used = file, 0.0

    def pytest_runtest_logstart(self) -> None:
        """Count from here."""
        self._used = _used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add to each phase's report what it used."""
        report = yield
        before, self._used = self._used, _used()
        report.user_properties.append(("processor", self._used - before))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what a phase cost."""
        used = [value for name, value in report.user_properties if name == "processor"]
        if self._file is not None and used:
            with self._file.open("a") as file:
                file.write(json.dumps([report.nodeid.partition("@")[0], round(report.duration, 3), round(float(str(used[-1])), 3)]) + "\n")


def _used() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--times`."""
    parser.addoption("--times", type=Path, help="add what each test took to this file; python -m tests.times shows it")


def pytest_configure(config: pytest.Config) -> None:
    """Take part where it is wanted."""
    file: Path | None = config.getoption("times")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        config.pluginmanager.register(Times(None if hasattr(config, "workerinput") else file))


def budgets(readme: str) -> dict[str, int]:
    """Folder -> seconds, from the rows of the README's table."""
    return {folder: int(seconds) for folder, seconds in re.findall(r"^\| `(\w+)/` \|.*\| (\d+) \|$", readme, re.MULTILINE)}


def read(lines: Iterable[str]) -> dict[str, Cost]:
    """Test -> what all its phases cost, from the lines that the plugin writes."""
    found: dict[str, Cost] = defaultdict(lambda: Cost(0.0, 0.0))
    for test, *cost in map(json.loads, lines):
        found[test] = found[test].plus(Cost(*cost))
    return dict(found)


def told(tests: Mapping[str, Cost], planned: Mapping[str, int]) -> list[str]:
    """The lines to be shown: the slowest tests, then every folder beside its budget, the dearest first."""
    slowest = sorted(tests.items(), key=lambda item: -item[1].seconds)[:SLOWEST]
    lines = [f"The slowest {len(slowest)} tests:", *(f"{cost.seconds:8.1f} s  {test}" for test, cost in slowest)]
    folders: dict[str, Cost] = defaultdict(lambda: Cost(0.0, 0.0))
    for test, cost in tests.items():
        folder = test.split("/")[1]
        folders[folder] = folders[folder].plus(cost)
    lines += ["", f"{'folder':>16}  {'seconds':>8} {'budget':>8} {'processor':>10}"]
    for folder, cost in sorted(folders.items(), key=lambda item: -item[1].seconds):
        budget = planned.get(folder)
        over = "  over its budget" if budget is None or cost.seconds > budget else ""
        lines.append(f"{folder:>16}  {cost.seconds:8.0f} {'none' if budget is None else budget:>8} {cost.processor:10.0f}{over}")
    whole = Cost(sum(cost.seconds for cost in tests.values()), sum(cost.processor for cost in tests.values()))
    lines.append(f"{'all':>16}  {whole.seconds:8.0f} {sum(planned.values()):8} {whole.processor:10.0f}")
    return lines


if __name__ == "__main__":
    with Path(sys.argv[1]).open() as written:
        print("\n".join(told(read(written), budgets((FOLDER / "README.md").read_text()))))
