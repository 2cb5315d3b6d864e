"""What a worker is given and what is asked of it: the queue, one row a call, and the environment that a pickle needs."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.project import load_project
from tidemill.errors import ArtifactError
from tidemill.models.artifact import PythonEngine
from tidemill.models.frame import frame
from tidemill.models.pipelines import queue
from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.models.pipelines.packages import checked_packages, installing, other_packages, project_file, python_version
from tidemill.models.pipelines.process import gone
from tidemill.models.pipelines.queue import BATCH, AskedRows, RowQueue
from tidemill.models.pipelines.wire import EACH, WHOLE, LoadedColumn, Loading


def asked(how: int = EACH, name: bytes = b"") -> AskedRows:
    """A row that is asked for; its bytes are its name here."""
    return AskedRows(how, 1, name)


@given(st.lists(st.sampled_from([EACH, WHOLE]), max_size=100))
def test_rows_are_taken_in_order_whole_ones_alone(kinds: list[int]) -> None:
    """Each is taken once, in the order in which it came, and no more than a batch at once."""
    waiting, taken = RowQueue("m"), list[AskedRows]()
    put = [asked(kind) for kind in kinds]
    for one in put:
        waiting.put(one)
    while batch := waiting.take(0.0):
        taken += batch
        assert len(batch) == 1 or (len(batch) <= BATCH and all(one.how == EACH for one in batch))
    assert taken == put


def test_rows_that_are_put_back_come_first() -> None:
    """The order of those who wait is kept."""
    waiting = RowQueue("m")
    for name in (b"a", b"b", b"c"):
        waiting.put(asked(name=name))
    first, *rest = waiting.take(0.0)
    waiting.put(asked(name=b"d"))
    waiting.put_back(rest)
    assert [first.rows, *(one.rows for one in waiting.take(0.0))] == [b"a", b"b", b"c", b"d"]


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused at once: a retry later is better than a queue that grows."""
    monkeypatch.setattr(queue, "MOST", 2)
    waiting = RowQueue("late v1")
    waiting.put(asked())
    waiting.put(asked())
    with pytest.raises(EngineUnavailable, match="2 requests wait for its worker already; retry"):
        waiting.put(asked())


def test_a_closed_queue_keeps_nobody_waiting() -> None:
    """What waits, what is put back and what comes later are told that the worker is gone; a row that nobody awaits is passed over."""
    waiting = RowQueue("m")
    first, second, cancelled = asked(), asked(), asked()
    for one in (first, second, cancelled):
        waiting.put(one)
    assert cancelled.future.cancel()
    taken = waiting.take(0.0)
    waiting.close()
    waiting.put_back(taken)
    assert waiting.take(0.0) == []
    for one in (first, second):
        assert isinstance(one.future.exception(), EngineUnavailable)
    cancelled.give(b"late")
    with pytest.raises(EngineUnavailable, match="released"):
        waiting.put(asked())


def test_what_ended_a_process_is_told() -> None:
    """By its code, or the signal."""
    assert str(gone(1)) == "its process ended with code 1"
    assert "SIGSEGV" in str(gone(-11))
    assert "more memory" not in str(gone(-11))
    assert "more memory" in str(gone(-9))


def made(**packages: str) -> PythonEngine:
    """What a manifest says of a pickle."""
    return PythonEngine("0" * 64, python_version(), packages, frame=False)


def test_the_same_environment_has_no_difference() -> None:
    """The packages that are installed are those that were recorded."""
    assert platform.python_version().startswith(f"{python_version()}.")
    assert checked_packages("late v1", made(numpy=np.__version__)) == []


def test_another_version_of_a_package_is_told() -> None:
    """It may serve if its golden rows are the same; with the command that brings the old one back."""
    (other,) = checked_packages("late v1", made(numpy="1.0"))
    assert str(other) == f"numpy {np.__version__} in the place of 1.0"
    assert installing([other]) == "run: pip install numpy==1.0"


def test_a_lacking_package_is_refused_with_the_command_that_installs_it() -> None:
    """An image of inference without scikit-learn says so in one line, before any process is started."""
    with pytest.raises(ArtifactError, match=r"needs no-such-learn, and that is not installed here; run: pip install no-such-learn==1\.2$"):
        checked_packages("late v1", made(**{"no-such-learn": "1.2"}))
    assert other_packages(made(**{"no-such-learn": "1.2"}))[0].now == ""


def test_another_python_is_refused() -> None:
    """A pickle is of one Python."""
    with pytest.raises(ArtifactError, match=r"which Python 2\.7 wrote, and this is Python 3\.\d+; serve it with Python 2\.7"):
        checked_packages("late v1", msgspec.structs.replace(made(), python="2.7"))


def test_a_pickle_of_a_project_needs_that_project(tmp_path: Path) -> None:
    """One that needs none asks for none; of several projects it is the one of that name."""
    assert project_file("late v1", "") == ""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "project.py").write_text("import tidemill as tm\nasked = tm.Event('asked', {'at': int}, time='at')\n")
        load_project(tmp_path / name)
    assert project_file("late v1", "tidemill_project_one_project") == str(tmp_path / "one" / "project.py")
    with pytest.raises(ArtifactError, match="uses code of its project, and none is loaded here"):
        project_file("late v1", "tidemill_project_no_such_one_here_project")


def test_a_worker_makes_the_frame_of_training() -> None:
    """From what a worker is told of its columns."""
    columns = [LoadedColumn("size", False, []), LoadedColumn("kind", True, ["small", "large"])]
    loading = msgspec.msgpack.decode(msgspec.msgpack.encode(Loading(columns, True, "value", 1, 100)), type=Loading)
    found = frame(loading.columns, np.array([[1.5, 1], [np.nan, np.nan]], np.float32))
    assert found["size"].dtype == np.float32
    assert found["kind"].tolist()[0] == "large"
    assert found.isna().to_numpy().tolist() == [[False, False], [True, True]]
