"""Windows: the same rows in the same windows whatever the order within the grace, the batches, or the restarts."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_drift.sample import Sample
from tidemill_drift.windows import Key, Windows

LENGTH, GRACE = 100, 20
Record = tuple[int, str]  # time, id


def logs(times: list[int], seed: int) -> list[list[Record]]:
    """Two partitions whose records are out of order by less than the grace, with some written twice."""
    draw = random.Random(seed)
    records = [(time, f"r{i}") for i, time in enumerate(times)]
    records += draw.sample(records, len(records) // 4)
    partitions: list[list[Record]] = [[], []]
    for time, name in sorted(records, key=lambda r: (r[0] + draw.randrange(GRACE), r[1])):
        partitions[int(name[1:]) % 2].append((time, name))
    return partitions


class Run:
    """Reads two partitions with random batches, and starts again from the kept position when told to."""

    def __init__(self, partitions: list[list[Record]], seed: int) -> None:
        self.partitions, self.draw = partitions, random.Random(seed)
        self.kept, self.closed = {0: 0, 1: 0}, 0
        self.found: dict[Key, list[str]] = {}
        self.start()

    def start(self) -> None:
        """As a new process does."""
        self.at, self.windows = dict(self.kept), Windows[str](LENGTH, GRACE, self.closed)

    def step(self, *, crash: bool) -> None:
        """Reads a batch of one or both partitions, closes what is complete and keeps the position, or crashes before."""
        for p in self.draw.choice([[0], [1], [0, 1]]):
            for time, name in self.partitions[p][self.at[p] : self.at[p] + self.draw.randrange(1, 12)]:
                self.windows.tick(p, time)
                self.windows.add(("m", "v"), time, name, name, (p, self.at[p]))
                self.at[p] += 1
        lagging = {p for p in (0, 1) if self.at[p] < len(self.partitions[p])}
        for closed in self.windows.complete(lagging):
            if closed.waits:
                continue
            key = closed.model, closed.version, closed.start
            assert self.found.setdefault(key, sorted(closed.rows)) == sorted(closed.rows)
        if crash:
            self.start()
        else:
            self.kept, self.closed = self.windows.resume_at(self.at), self.windows.closed_ms

    def to_the_end(self, crashes: int) -> dict[Key, list[str]]:
        """Everything, with crashes at random points."""
        while any(self.at[p] < len(self.partitions[p]) for p in (0, 1)):
            crash = crashes > 0 and self.draw.random() < 0.2
            crashes -= crash
            self.step(crash=crash)
        return self.found


@given(st.lists(st.integers(0, 600), max_size=60), st.integers(0, 10**6), st.integers(0, 4))
def test_windows_depend_on_the_records_alone(times: list[int], seed: int, crashes: int) -> None:
    """Any interleaving, batching and restart gives each closed window exactly the ids of its time, once, and no window twice with other rows."""
    partitions = logs([*times, 2000], seed)
    found = Run(partitions, seed + 1).to_the_end(crashes)
    naive = defaultdict(set)
    for i, time in enumerate(times):
        naive[("m", "v", time // LENGTH * LENGTH)].add(f"r{i}")
    assert found == {key: sorted(names) for key, names in naive.items()}


def test_late_rows_are_refused_and_say_so() -> None:
    """What comes after its window was closed is not taken, in this run and in the next one."""
    windows = Windows[int](LENGTH, GRACE)
    windows.tick(0, 250)
    assert windows.add(("m", "v"), 50, "a", 1, (0, 0))
    assert [closed.start for closed in windows.complete(set())] == [0]
    assert not windows.add(("m", "v"), 60, "b", 1, (0, 1))
    assert not Windows[int](LENGTH, GRACE, windows.closed_ms).add(("m", "v"), 60, "b", 1, (0, 1))


def test_a_partition_not_yet_read_holds_all_windows() -> None:
    """While one partition lags, its time counts; when it has said nothing yet, nothing is closed."""
    windows = Windows[int](LENGTH, GRACE)
    windows.tick(0, 1000)
    windows.add(("m", "v"), 50, "a", 1, (0, 0))
    assert windows.complete({1}) == []
    windows.tick(1, 30)
    assert windows.complete({1}) == []
    windows.add(("m", "v"), 30, "b", 2, (1, 0))
    assert [sorted(closed.rows) for closed in windows.complete(set())] == [[1, 2]]


def test_windows_come_in_order_of_time_and_by_version() -> None:
    """Two versions side by side have windows of their own; the older window is told first."""
    windows = Windows[int](LENGTH, GRACE)
    windows.tick(0, 10_000)
    for i, (version, time) in enumerate([("b", 250), ("a", 150), ("b", 120), ("a", 50)]):
        windows.add(("m", version), time, str(i), i, (0, i))
    assert [(closed.version, closed.start) for closed in windows.complete(set())] == [("a", 0), ("a", 100), ("b", 100), ("b", 200)]


def test_restart_position() -> None:
    """The first record of any open window; the position itself where none is open."""
    windows = Windows[int](LENGTH, GRACE)
    for offset, time in enumerate([10, 110, 20, 210]):
        windows.add(("m", "v"), time, str(offset), offset, (0, offset))
    assert windows.resume_at({0: 4, 1: 9}) == {0: 0, 1: 9}
    windows.tick(0, 219)
    windows.complete(set())
    assert windows.resume_at({0: 4, 1: 9}) == {0: 1, 1: 9}


def few(rows: list[str]) -> str:
    """Three rows are needed."""
    return "" if len(set(rows)) >= 3 else f"{len(set(rows))} of 3 rows"


class Joining(Run):
    """As `Run`, with windows that are joined until they have three rows. What waits is kept with the position, as judgements keep it."""

    def start(self) -> None:
        """As a new process does."""
        self.at = dict(self.kept)
        self.windows = Windows[str](LENGTH, GRACE, self.closed, lacks=few, since=dict(getattr(self, "since", {})))

    def step(self, *, crash: bool) -> None:
        """As `Run.step`."""
        super().step(crash=crash)
        if not crash:
            self.since = dict(self.windows.since)


@given(st.lists(st.integers(0, 2500), max_size=40), st.integers(0, 10**6), st.integers(0, 4))
def test_small_windows_are_joined_as_the_log_says(times: list[int], seed: int, crashes: int) -> None:
    """Rows wait for the next window until there are three, or they are twelve windows old; batches and restarts change nothing."""
    records = {f"r{i}": time for i, time in enumerate(times)} | {"end": 2700}
    found = Joining(logs([*times, 2700], seed), seed + 1).to_the_end(crashes)
    waiting, judged = list[str](), dict[Key, list[str]]()
    for start in range(0, 2700, LENGTH):
        now = [name for name, time in records.items() if start <= time < start + LENGTH and name != "end"]
        waiting = [name for name in waiting if records[name] // LENGTH * LENGTH >= start - 11 * LENGTH] + now
        if now and waiting:
            key = "m", "v", min(records[name] for name in waiting) // LENGTH * LENGTH
            if len(waiting) >= 3:
                judged[key], waiting = sorted(waiting), []
    assert found == judged


def test_what_waits_says_what_it_lacks() -> None:
    """Each closed window of a version without enough rows names them; a late row is taken while they wait; a version that is gone waits for nothing."""
    windows = Windows[str](LENGTH, GRACE, lacks=few)
    windows.add(("m", "v"), 50, "a", "a", (0, 0))
    windows.add(("m", "w"), 50, "b", "b", (0, 1))
    windows.tick(0, 130)
    one, other = windows.complete(set())
    assert (one.lacks, one.waits, one.versions, one.rows, other.version) == ("1 of 3 rows", True, 2, ["a"], "w")
    assert windows.resume_at({0: 5}) == {0: 0}
    assert windows.complete(set()) == []
    assert windows.add(("m", "v"), 60, "late", "late", (0, 2))
    windows.add(("m", "v"), 150, "c", "c", (0, 3))
    windows.gone = lambda version: "superseded by x" if version[1] == "w" else ""
    windows.add(("m", "w"), 150, "d", "d", (0, 4))
    windows.tick(0, 230)
    one, other = windows.complete(set())
    assert (one.start, one.end, one.lacks, one.waits, sorted(one.rows)) == (0, 200, "", False, ["a", "c", "late"])
    assert (other.lacks, other.waits, other.gone) == ("superseded by x", False, True)
    assert not windows.add(("m", "v"), 60, "later", "later", (0, 5))
    assert windows.resume_at({0: 5}) == {0: 5}


def test_rows_do_not_wait_for_ever() -> None:
    """A version without further rows holds neither memory nor the position: after twelve windows its rows are left out."""
    windows = Windows[str](LENGTH, GRACE, lacks=few)
    windows.add(("m", "v"), 50, "a", "a", (0, 0))
    for i in range(1, 15):
        windows.add(("m", "w"), i * LENGTH, f"w{i}", "w", (0, i))
        windows.tick(0, i * LENGTH + LENGTH + GRACE)
        windows.complete(set())
        assert (windows.resume_at({0: 99})[0] == 0) == (i < 11)


@given(st.lists(st.integers(0, 50)), st.integers(1, 20), st.integers(0, 100))
def test_samples_do_not_depend_on_order_or_repetition(ids: list[int], most: int, seed: int) -> None:
    """A bounded sample of the ids, each once, the same in any order."""
    first, second = Sample[int](most), Sample[int](most)
    for i in ids:
        first.add(str(i), i)
    again = ids * 2
    random.Random(seed).shuffle(again)
    for i in again:
        second.add(str(i), i)
    assert first.rows() == second.rows()
    assert len(first) == len(first.rows()) == min(most, len(set(ids)))


def test_the_first_row_of_an_id_counts() -> None:
    """A prediction logged twice is the one that was logged first."""
    sample = Sample[str](5)
    sample.add("a", "first")
    sample.add("a", "second")
    assert sample.rows() == ["first"]


@pytest.mark.parametrize("most", [100, 1000])
def test_samples_are_fair(most: int) -> None:
    """Each of the ids has the same chance, so that a sample's mean is that of all."""
    sample = Sample[int](most)
    for i in range(10_000):
        sample.add(f"id-{i}", i)
    assert abs(sum(sample.rows()) / most - 5000) < 4 * 2887 / most**0.5
