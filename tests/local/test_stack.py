"""The stack with real servers and stand-in services."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from tests.ask import get as ask
from tests.local.observe import STANDINS, alive, left_after
from tests.patience import PATIENCE_SECONDS

from tidemill.local import processes
from tidemill.local.addresses import find
from tidemill.local.processes import StackError
from tidemill.local.services import LocalService
from tidemill.local.stack import External, Stack

pytestmark = pytest.mark.integration
ONE = LocalService("one", "standin_ready", ("valkey",))
TWO = LocalService("two", "standin_ready", ())


def test_services_get_addresses_and_are_found(home: Path) -> None:
    """Every service runs with the settings it needs, and `find` gives others the same addresses until the stack stops."""
    with Stack(home, project="my_project", services=(ONE, TWO)) as stack:
        told = {name: ask(url).json() for name, url in stack.urls.items()}
        assert find(home) is not None
        assert json.loads((home / "stack.json").read_text())["pids"] == {name: stack.pid(name) for name in ("one", "two", "valkey")}
        assert find(home).urls == stack.urls  # type: ignore[union-attr]
    for name, settings in told.items():
        assert stack.urls[name] == f"http://{settings['TIDEMILL_HOST']}:{settings['TIDEMILL_PORT']}"
        assert settings["REDIS_URL"] == stack.redis_url
        assert settings["TIDEMILL_OFFLINE"] == str(home / "offline")
        assert settings["TIDEMILL_PROJECT"] == "my_project"
        assert settings["KAFKA_BOOTSTRAP_SERVERS"] is None, "nobody needs Kafka here"
    assert find(home) is None
    assert alive(home) == []
    assert "ends in good order" in stack.log("one").read_text()


def test_who_works_on_streams_lets_others_go_first(home: Path) -> None:
    """A service is told the niceness that its entry says, and starts without it: a nice one would not start on a busy machine."""
    with Stack(home, services=(replace(TWO, nice=7), LocalService("front", "standin_ready", ()))) as stack:
        told = {name: ask(url).json()["TIDEMILL_NICE"] for name, url in stack.urls.items()}
        found = {name: psutil.Process(stack.pid(name)).nice() for name in told}
    assert told == {"two": "7", "front": "0"}
    assert set(found.values()) == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_a_killed_service_is_restarted(home: Path) -> None:
    """After kill -9 the service comes back at the same address; both logs show it."""
    with Stack(home, services=(TWO,)) as stack:
        before = stack.pid("two")
        stack.kill("two")
        stack.wait_ready("two")
        assert ask(stack.urls["two"]).json()["pid"] == stack.pid("two") != before
    assert stack.log("two").read_text().count('"event": "process starts"') == 2
    assert "exited: two (terminated by SIGKILL; not expected)" in stack.log("supervisor").read_text()


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("standin_crash", "bad ended instead of becoming ready.*FROBNICATE is missing"),
        ("standin_hang", "not ready after 20 s: bad\nbad: .*timed out.*waits for a lock"),
        ("standin_nowhere", "bad ended instead of becoming ready.*No module named"),
    ],
)
def test_a_service_that_fails_is_named_with_its_last_lines(home: Path, module: str, says: str) -> None:
    """The error names the one service that failed and shows why; everything else is stopped."""
    with pytest.raises(StackError, match=f"(?s){says}"):
        Stack(home, services=(TWO, LocalService("bad", module, ())), timeout_seconds=20).start()
    assert alive(home) == []
    assert find(home) is None


def test_a_server_that_is_away_stops_everything_all_the_same(home: Path) -> None:
    """`keep` is for services: without its servers a stack is of no use, and nothing of it is left."""
    with pytest.raises(StackError, match="not ready after 5 s: kafka"):
        Stack(
            home,
            services=(ONE,),
            servers=("kafka", "valkey"),
            external=External(kafka="127.0.0.1:1"),
            timeout_seconds=5,
            keep=True,
            detach=True,
        ).start()
    assert alive(home) == []
    assert find(home) is None


def test_prepare_runs_between_servers_and_services(home: Path) -> None:
    """The hook finds the servers answering and no service started."""
    seen = []

    def prepare(stack: Stack) -> None:
        with redis.Redis.from_url(stack.redis_url) as client:
            seen.append((client.ping(), stack.pid("one")))

    with Stack(home, services=(ONE,), prepare=prepare):
        assert seen == [(True, 0)]


def test_a_failing_prepare_stops_everything(home: Path) -> None:
    """An error in the hook is the caller's to see, and leaves no process."""

    def prepare(stack: Stack) -> None:
        raise LookupError(f"no project at {stack.redis_url}")

    with pytest.raises(LookupError, match="no project at redis://"):
        Stack(home, services=(ONE,), prepare=prepare).start()
    assert alive(home) == []


def test_two_stacks_cannot_share_a_folder(home: Path) -> None:
    """The second start is refused and the first goes on."""
    with Stack(home, services=(TWO,)) as stack:
        with pytest.raises(StackError, match=r"runs in .* already.*tidemill down"):
            Stack(home, services=(TWO,)).start()
        stack.wait_ready()


def test_a_stack_outlives_the_thread_that_started_it(home: Path) -> None:
    """Only the end of the process counts, not that of the thread."""
    stack = Stack(home, services=(TWO,))
    thread = threading.Thread(target=stack.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    try:
        assert ask(stack.urls["two"]).status_code == 200
    finally:
        stack.stop()


async def test_a_stack_runs_beside_an_event_loop(home: Path) -> None:
    """Tests and benchmarks may start one from a coroutine."""
    stack = await asyncio.to_thread(Stack(home, services=(ONE,)).__enter__)
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        assert (await client.get(stack.urls["one"])).status_code == 200
    stack.stop()


def test_external_servers_are_used_and_not_started(home: Path, valkey: str) -> None:
    """A given Valkey is passed on as it is."""
    with Stack(home, services=(ONE,), external=External(redis_url=valkey, offline="s3://bucket/prefix")) as stack:
        told = ask(stack.urls["one"]).json()
        assert [process.name for process in stack.supervisor.processes().values()] == ["one"]
    assert (told["REDIS_URL"], told["TIDEMILL_OFFLINE"]) == (valkey, "s3://bucket/prefix")


@pytest.mark.parametrize(
    ("server", "external"),
    [("kafka", External(kafka="127.0.0.1:1")), ("valkey", External(redis_url="redis://user:hidden@127.0.0.1:1/0"))],
)
def test_an_external_server_that_is_away_is_named(home: Path, server: str, external: External) -> None:
    """The error gives the address without its password."""
    with pytest.raises(StackError, match=f"(?s)not ready after 5 s: {server}.*127.0.0.1:1.*check its address") as caught:
        Stack(home, services=(), servers=(server,), external=external, timeout_seconds=5).start()
    assert "hidden" not in str(caught.value)


def test_external_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty variables count as not set."""
    for name, value in {"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "REDIS_URL": "", "TIDEMILL_OFFLINE": "s3://b"}.items():
        monkeypatch.setenv(name, value)
    assert External.from_environment() == External("k:9092", None, "s3://b")


def test_a_folder_the_process_manager_cannot_take_is_refused(tmp_path: Path) -> None:
    """A percent sign in the name is an error before anything is made."""
    with pytest.raises(StackError, match="cannot take the %"):
        Stack(tmp_path / "100%")


@contextmanager
def run_stack(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a stack in a process of its own, ready inside the block and killed at its end."""
    command = [sys.executable, str(STANDINS / "run_stack.py"), str(home), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_kill_of_the_parent_leaves_no_orphan_and_a_restart_finds_its_data(home: Path) -> None:
    """After kill -9 of whoever started the stack, everything ends; the next start has the same ports and what was written."""
    with run_stack(home, "valkey", "two=standin_ready"):
        first = find(home)
        assert first is not None
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
    with Stack(home, services=(TWO,), servers=("valkey",)) as stack:  # at once: it waits for the rest of the old one
        assert (stack.redis_url, stack.urls) == (first.redis_url, first.urls)
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.get("kept") == b"yes"
    assert alive(home) == []


def test_kill_of_the_parent_alone_is_enough(home: Path) -> None:
    """Nobody needs to start again: the processes of a killed parent end by themselves."""
    with run_stack(home, "valkey", "two=standin_ready"):
        assert len(alive(home)) == 3
    assert left_after(home) == []


def test_kill_of_the_supervisor_leaves_no_orphan(home: Path) -> None:
    """After kill -9 of the process manager its children end, and `stop` finds nothing left to do."""
    with Stack(home, services=(TWO,), servers=("valkey",)) as stack:
        supervisor = processes.running(home, "supervisor")
        assert supervisor is not None
        supervisor.kill()
        assert left_after(home) == []
        with pytest.raises(StackError, match="stopped meanwhile"):
            stack.wait_ready()


def test_a_stack_killed_while_it_starts_leaves_no_orphan(home: Path) -> None:
    """Kill -9 before everything is ready, and a start afterwards, meet no trace of it."""
    command = [sys.executable, str(STANDINS / "run_stack.py"), str(home), "valkey", "bad=standin_hang"]
    with subprocess.Popen(command) as parent:
        while processes.running(home, "bad") is None and parent.poll() is None:
            time.sleep(0.02)
        assert parent.poll() is None
        parent.kill()
    with Stack(home, services=(TWO,), servers=("valkey",)):
        assert {psutil.Process(process.pid).environ()["TIDEMILL_PROCESS"].rpartition(":")[2] for process in alive(home)} == {
            "supervisor",
            "two",
            "valkey",
        }


def test_halt_resume_and_restart(home: Path) -> None:
    """A halted process stays down until it is resumed; a restarted one is another process with the same data."""
    with Stack(home, services=(), servers=("valkey",)) as stack, redis.Redis.from_url(stack.redis_url) as client:
        client.set("kept", "yes")
        stack.halt("valkey")
        assert stack.pid("valkey") == 0
        with pytest.raises(redis.ConnectionError):
            client.ping()
        stack.resume("valkey")
        before = stack.pid("valkey")
        stack.restart("valkey")
        assert stack.pid("valkey") != before
        assert client.get("kept") == b"yes"
        os.kill(stack.pid("valkey"), signal.SIGTERM)
        stack.wait_ready("valkey")
