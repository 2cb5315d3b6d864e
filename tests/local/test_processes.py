"""Pid files, ports and log tails."""

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.local import processes
from tidemill.local.processes import HOST, StackError


def test_ports_are_kept_for_the_next_run(home: Path) -> None:
    """A second run gets the same ports, and a new name one that no other has."""
    first = processes.assign_ports(home, ["kafka", "valkey"], {})
    second = processes.assign_ports(home, ["valkey", "kafka", "serving"], {})
    assert {name: second[name] for name in first} == first
    assert len(set(second.values())) == 3


def test_a_run_with_fewer_processes_forgets_no_port(home: Path) -> None:
    """Starting a part of the stack leaves the other ports as they were."""
    both = processes.assign_ports(home, ["kafka", "valkey"], {})
    processes.assign_ports(home, ["kafka"], {})
    assert processes.assign_ports(home, ["kafka", "valkey"], {}) == both


def test_ports_lie_below_the_ephemeral_range(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No outgoing connection can take a chosen port while its server is down."""
    monkeypatch.delenv("TIDEMILL_PORTS", raising=False)
    ports = processes.assign_ports(home, [f"p{number}" for number in range(20)], {})
    assert len(set(ports.values())) == 20
    assert all(15_000 <= port < 32_000 for port in ports.values())


def test_no_port_is_given_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports drawn for one stack differ from each other, however few there are."""
    monkeypatch.setenv("TIDEMILL_PORTS", "31900-31919")
    monkeypatch.setattr(processes, "is_free", lambda port: True)
    assert len(set(processes.assign_ports(home, [f"p{number}" for number in range(20)], {}).values())) == 20


def test_ports_are_chosen_from_those_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may say from which ports: both ends belong to them, and when none is left that is said."""
    monkeypatch.setenv("TIDEMILL_PORTS", "31900-31901")
    monkeypatch.setattr(processes, "is_free", lambda port: True)
    assert set(processes.assign_ports(home, ["one", "two"], {}).values()) == {31_900, 31_901}
    with pytest.raises(StackError, match="no free port between 31900 and 31901"):
        processes.assign_ports(home, ["three"], {})


@pytest.mark.parametrize("text", ["31900", "31901-31900", "0-10", "31900-70000", "31900-", "a-b"])
def test_ports_that_are_none_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable must be two ports, the first not after the last."""
    monkeypatch.setenv("TIDEMILL_PORTS", text)
    with pytest.raises(StackError, match="TIDEMILL_PORTS") as told:
        processes.free_port(set())
    assert "15000-31999" in told.value.mend


def test_a_given_port_wins_and_is_kept(home: Path) -> None:
    """A port given once is the one of later runs, too."""
    automatic = processes.assign_ports(home, ["kafka"], {})
    given_port = processes.assign_ports(home, ["other"], {})["other"]
    assert processes.assign_ports(home, ["kafka"], {"kafka": given_port}) != automatic
    assert processes.assign_ports(home, ["kafka"], {}) == {"kafka": given_port}


@pytest.mark.parametrize(("given_ports", "mend"), [(True, "give another one"), (False, "ports.json")])
def test_a_port_in_use_is_refused_by_name(home: Path, given_ports: bool, mend: str) -> None:
    """A port somebody listens on is an error that names the process, the port and what to do."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        (home / "ports.json").write_text(json.dumps({"kafka": port}))
        with pytest.raises(StackError, match=f"port {port} of kafka is in use .*{mend}"):
            processes.assign_ports(home, ["kafka"], {"kafka": port} if given_ports else {})


@pytest.mark.parametrize("content", ["", "no number", "-5", "999999999", pytest.param(str(os.getpid()), id="our own"), "1"])
def test_a_stale_or_strange_pid_file_is_no_process(home: Path, content: str) -> None:
    """A pid that is dead, unreadable or somebody else's is never taken for ours, and never stopped."""
    (home / "run" / "kafka.pid").write_text(content)
    assert processes.running(home, "kafka") is None
    assert processes.stop_leftovers(home) == []


def test_nothing_to_stop(home: Path) -> None:
    """Without pid files there are no leftovers."""
    assert processes.stop(home, "kafka", 1) is False
    assert processes.stop_leftovers(home) == []


@given(
    lines=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=20), max_size=30
    ),
    count=st.integers(1, 40),
)
def test_last_lines_are_the_last_ones(tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int) -> None:
    """The tail of a log equals the end of the whole file."""
    file = tmp_path_factory.mktemp("log") / "a.log"
    file.write_bytes("".join(line + "\n" for line in lines).encode())
    assert processes.last_lines(file, count) == "\n".join(lines[-count:])


def test_last_lines_of_a_large_or_absent_file(tmp_path: Path) -> None:
    """Only the end of a large log is read, and no log has no lines."""
    assert processes.last_lines(tmp_path / "absent.log", 5) == ""
    file = tmp_path / "large.log"
    file.write_bytes(b"\xff broken\n" * 1_000_000 + b"one\ntwo\n")
    assert processes.last_lines(file, 3).splitlines() == ["\ufffd broken", "one", "two"]
