"""Orders: carried out at their point, at the right time, once; every point exists in the service it is named for; the clock can be bent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.faults.injections.hooked import WORK, points
from tests.faults.injections.orders import Obedience, Order, Sabotage, give, set_clock, waiting, withdraw

ROOT = Path(__file__).parents[3]
PATH = os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services", ROOT)))


def test_an_order_waits_for_its_point_and_its_turn(tmp_path: Path) -> None:
    """Other points pass; the third time this one is reached the order is carried out and gone."""
    process = Obedience(tmp_path, "features")
    give(tmp_path, "features", Order("before_apply", "raise", count=3))
    for _ in range(5):
        process.reach("after_apply")
    process.reach("before_apply")
    process.reach("before_apply")
    assert waiting(tmp_path, "features")
    with pytest.raises(Sabotage, match="before_apply"):
        process.reach("before_apply")
    assert not waiting(tmp_path, "features")
    process.reach("before_apply")


def test_an_order_for_several_times(tmp_path: Path) -> None:
    """From its first time on it is carried out as often as it says."""
    process = Obedience(tmp_path, "offline")
    give(tmp_path, "offline", Order("before_write", "raise", count=2, times=2))
    process.reach("before_write")
    for _ in range(2):
        with pytest.raises(Sabotage):
            process.reach("before_write")
    process.reach("before_write")
    assert not waiting(tmp_path, "offline")


def test_a_new_order_counts_anew(tmp_path: Path) -> None:
    """What was reached under an order that was withdrawn does not count for the next; another process' order is not ours."""
    process = Obedience(tmp_path, "features")
    give(tmp_path, "features2", Order("before_apply", "raise"))
    give(tmp_path, "features", Order("before_apply", "raise", count=2))
    process.reach("before_apply")
    assert withdraw(tmp_path, "features")
    assert not withdraw(tmp_path, "features")
    process.reach("before_apply")
    time.sleep(0.01)
    give(tmp_path, "features", Order("before_apply", "raise", count=2))
    process.reach("before_apply")
    with pytest.raises(Sabotage):
        process.reach("before_apply")


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python of its own, since hooks and clocks cannot be taken back."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": PATH}, capture_output=True, text=True, check=False
    )


KILLED = """
import sys, pathlib, time
from tests.faults.injections.orders import Obedience
Obedience(pathlib.Path(sys.argv[1]), "drift").reach("before_keep")
time.sleep(5)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_killed(tmp_path: Path, seconds: float) -> None:
    """A process that is ordered to die dies by SIGKILL, at once or a little later, and the order is gone before."""
    give(tmp_path, "drift", Order("before_keep", "kill", seconds=seconds))
    assert run(KILLED, str(tmp_path)).returncode == -9
    assert not waiting(tmp_path, "drift")


HOOKS = """
import sys
from tests.faults.injections import hooked
for step, place in (*hooked.WORK[sys.argv[1]], hooked.FOLLOW):
    hooked._hook(place, step, print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("service", WORK)
def test_every_point_is_a_part_of_its_service(service: str) -> None:
    """Each step that has points is a function of the service as it is now."""
    done = run(HOOKS, service)
    assert done.returncode == 0, done.stderr
    assert len(set(points(service))) == 2 * len(WORK[service])


CLOCK = """
import sys, pathlib, time
from tests.faults.injections import hooked, orders
folder = pathlib.Path(sys.argv[1])
before, monotonic = time.time(), time.monotonic()
hooked._bend_clock(folder / "clock")
from tidemill.clock import now_ms
print(round((now_ms() / 1000 - before) / 60))
orders.set_clock(folder, -3600)
time.sleep(0.15)
print(round((now_ms() / 1000 - before) / 60), round((time.time() - before) / 60), round((time.monotonic() - monotonic) / 60))
orders.set_clock(folder, 0)
time.sleep(0.15)
print(round((now_ms() / 1000 - before) / 60))
"""


def test_the_clock_goes_wrong_and_right_again(tmp_path: Path) -> None:
    """The wall clock follows the file, the monotonic clock does not."""
    done = run(CLOCK, str(tmp_path))
    assert done.stdout.split() == ["0", "-60", "-60", "0", "0"], done.stderr


def test_a_clock_is_set_by_its_file(tmp_path: Path) -> None:
    """What is set is what a process reads."""
    set_clock(tmp_path / "orders", 12.5)
    assert float((tmp_path / "orders" / "clock").read_text()) == 12.5
