"""The local stack: start, readiness, stop, and the handles that tests, demo and benchmarks use."""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tidemill.local import kafka, processes, services, supervisor, valkey
from tidemill.local.addresses import Addresses, find, home_folder
from tidemill.local.processes import HOST, StackError
from tidemill.local.services import SERVICES, Service
from tidemill.local.supervisor import Program, Supervisor

Probe = Callable[[], str | None]  # why it is not ready, or None
_POLL_SECONDS = 0.05
_STOP_SECONDS = 45.0  # of the supervisor: services ten, then servers ten, and some air
_LAST_LINES = 25


@dataclass(frozen=True)
class External:
    """Servers that run elsewhere: used where given, never started."""

    kafka: str | None = None  # bootstrap servers
    redis_url: str | None = None
    offline: str | None = None  # path or URL

    @classmethod
    def from_environment(cls) -> Self:
        """Read KAFKA_BOOTSTRAP_SERVERS, REDIS_URL and TIDEMILL_OFFLINE."""
        get = os.environ.get
        return cls(get("KAFKA_BOOTSTRAP_SERVERS") or None, get("REDIS_URL") or None, get("TIDEMILL_OFFLINE") or None)


@dataclass
class Stack:
    """Kafka, Valkey and services as supervised processes with their data in one folder.

    Use it as a context manager, or call `start` and `stop`. A process that dies is restarted; when the process that started
    the stack dies, however it dies, the whole stack stops (unless `detach`). Errors are `StackError`.
    """

    home: Path
    project: str | None = None  # TIDEMILL_PROJECT: a path or a module
    services: Sequence[Service] = SERVICES
    servers: Sequence[str] | None = None  # kafka, valkey; None: what the services need
    external: External = field(default_factory=External)
    ports: Mapping[str, int] = field(default_factory=dict)  # by process name; others are chosen once and kept
    environment: Mapping[str, str] = field(default_factory=dict)  # more variables for every process
    prepare: Callable[["Stack"], None] | None = None  # run once the servers answer, before any service starts: topics
    detach: bool = False
    timeout_seconds: float = 60.0  # for the servers to answer, and again for the services to be ready

    def __post_init__(self) -> None:
        self.home = home_folder(self.home)
        if "%" in str(self.home):
            raise StackError(f"the data folder {self.home} has a % in its name, which the process manager cannot take: choose another with --home")
        needed = {need for service in self.services for need in service.needs} if self.servers is None else set(self.servers)
        outside = {"kafka": self.external.kafka, "valkey": self.external.redis_url}
        self._needed = [name for name in outside if name in needed]
        self._own = [name for name in self._needed if outside[name] is None]
        self.offline = self.external.offline or str(self.home / "offline")
        self.kafka = self.external.kafka or ""
        self.redis_url = self.external.redis_url or ""
        self.urls: dict[str, str] = {}
        self._launched: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when all is ready; on any failure, stop everything and raise."""
        for folder in ("run", "logs"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two starts at the same time: the second finds the first one running
            refuse_if_running(self.home)
            try:
                self._start()
            except BaseException:
                self.stop()
                raise

    def _start(self) -> None:
        names = ["supervisor", *(("kafka", "kafka-controller") if "kafka" in self._own else ()), *(("valkey",) if "valkey" in self._own else ())]
        ports = processes.assign_ports(self.home, [*names, *(service.name for service in self.services)], self.ports)
        self.kafka = self.kafka or (f"{HOST}:{ports['kafka']}" if "kafka" in self._own else "")
        self.redis_url = self.redis_url or (f"redis://{HOST}:{ports['valkey']}/0" if "valkey" in self._own else "")
        self.urls = {service.name: f"http://{HOST}:{ports[service.name]}" for service in self.services}
        self._launch_supervisor(ports)
        if "valkey" in self._own:
            (self.home / "valkey").mkdir(exist_ok=True)
            self.supervisor.start("valkey")
        if "kafka" in self._own:
            kafka.prepare(self.home / "kafka", ports["kafka"], ports["kafka-controller"])
            self.supervisor.start("kafka")
        self._wait(self._needed, starting=True)
        if self.prepare:
            self.prepare(self)
        for service in self.services:
            self.supervisor.start(service.name)
        self._wait(list(self.urls), starting=True)
        pids = {name: process.pid for name, process in self.supervisor.processes().items()}
        Addresses(self.kafka, self.redis_url, self.offline, self._project(), self.urls, pids, self.supervisor.url).write(self.home)

    def _launch_supervisor(self, ports: Mapping[str, int]) -> None:
        password = secrets.token_hex(16)
        config = supervisor.write_config(self.home, ports["supervisor"], password, self._programs(ports))
        self.supervisor = Supervisor(f"http://tidemill:{password}@{HOST}:{ports['supervisor']}")
        tie = "none" if self.detach else str(os.getpid())
        with self.log("supervisor").open("ab") as log:
            self._launched = subprocess.Popen(
                supervisor.child_command("supervisor", tie, supervisor.command(config)),
                env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches us alone: we stop the others in order
            )  # fmt: skip
        deadline = time.monotonic() + self.timeout_seconds
        while self._launched.poll() is None and time.monotonic() < deadline:
            try:
                self.supervisor.state()
            except OSError:
                time.sleep(_POLL_SECONDS)
            else:
                return
        raise StackError(f"the supervisor does not answer\n{self._last_lines('supervisor')}")

    def _programs(self, ports: Mapping[str, int]) -> list[Program]:
        commands = {"kafka": kafka.command, "valkey": lambda: valkey.command(ports["valkey"])}
        servers = [Program(name, "servers", commands[name](), folder=name) for name in self._own]
        return servers + [
            Program(service.name, "services", [sys.executable, "-m", service.module], None, {"TIDEMILL_PORT": str(ports[service.name])})
            for service in self.services
        ]

    def _project(self) -> str | None:
        return str(Path(self.project).absolute()) if self.project and Path(self.project).exists() else self.project

    def _environment(self) -> dict[str, str]:
        ours = {
            "TIDEMILL_HOME": str(self.home),
            "TIDEMILL_HOST": HOST,
            "TIDEMILL_OFFLINE": self.offline,
            "TIDEMILL_PROJECT": self._project(),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        return {**os.environ, **{name: value for name, value in ours.items() if value}, **self.environment}

    def stop(self) -> None:
        """Stop the services, then the servers, and return when all have ended; nothing happens when nothing was started."""
        if self._launched is None:
            return
        self._launched.terminate()
        try:
            self._launched.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._launched.kill()
            self._launched.wait()
        self._launched = None
        if not processes.running(self.home, "supervisor"):  # by now it could be the one of somebody else's stack
            stop(self.home)

    def wait(self) -> int:
        """Return the supervisor's exit code once the stack was stopped from elsewhere."""
        assert self._launched, "the stack was not started here"
        return self._launched.wait()

    def log(self, name: str) -> Path:
        """Return the path of the log of a process (or of the supervisor)."""
        return self.home / "logs" / f"{name}.log"

    def pid(self, name: str) -> int:
        """Return the pid of a process, 0 while it is not alive."""
        return self.supervisor.processes()[name].pid

    def kill(self, name: str) -> None:
        """Kill -9 one process and return when it is dead; the supervisor restarts it (see `wait_ready`)."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        while self.pid(name) == pid:
            time.sleep(_POLL_SECONDS)

    def halt(self, name: str) -> None:
        """Stop one process in good order; it stays down until `resume`."""
        self.supervisor.stop(name)

    def resume(self, name: str) -> None:
        """Start a halted process and return when it is ready."""
        self.supervisor.start(name)
        self.wait_ready(name)

    def restart(self, name: str) -> None:
        """Stop one process in good order, start it again and return when it is ready."""
        self.halt(name)
        self.resume(name)

    def wait_ready(self, *names: str) -> None:
        """Return when these processes (all of them by default) are ready. Raises `StackError` after the timeout."""
        self._wait(list(names or (*self._needed, *self.urls)), starting=False)

    def _probe(self, name: str) -> str | None:
        if name == "kafka":
            return kafka.not_ready(self.kafka)
        return valkey.not_ready(self.redis_url) if name == "valkey" else services.not_ready(self.urls[name])

    def _wait(self, names: Sequence[str], *, starting: bool) -> None:
        """Poll until all are ready. One that ends while `starting` fails at once; later it may fall and be restarted."""
        failing = {"BACKOFF", "EXITED", "FATAL"} if starting else {"FATAL"}
        deadline = time.monotonic() + self.timeout_seconds
        waiting = dict.fromkeys(names, "")
        while waiting:
            try:
                known = self.supervisor.processes()
            except OSError as error:
                raise StackError(f"the stack was stopped\n{self._last_lines('supervisor')}") from error
            for name in list(waiting):
                if name in known and known[name].statename in failing:
                    raise StackError(f"{name} ended instead of becoming ready. {self._last_lines(name)}")
                reason = self._probe(name)
                if reason is None:
                    del waiting[name]
                elif time.monotonic() > deadline:
                    raise StackError(f"{name} is not ready after {self.timeout_seconds:g} s ({reason}). {self._last_lines(name)}")
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _last_lines(self, name: str) -> str:
        file = self.log(name)
        return f"Last lines of {file}:\n{processes.last_lines(file, _LAST_LINES)}" if file.exists() else "It runs elsewhere: check its address."


def refuse_if_running(home: Path) -> None:
    """Raise `StackError` when a stack runs in this folder; one that is stopping, or never became ready, is stopped to its end."""
    addresses = find(home)
    try:
        serving = addresses is not None and Supervisor(addresses.supervisor).state() == "RUNNING"
    except OSError:
        serving = False
    if serving:
        raise StackError(f"a stack runs in {home} already: `tidemill down` stops it, `--home` chooses another folder")
    stop(home)


def stop(home: Path) -> bool:
    """Stop the stack of this data folder, whoever started it. Return whether there was anything to stop."""
    (home / "stack.json").unlink(missing_ok=True)
    found = processes.stop(home, "supervisor", _STOP_SECONDS)
    return bool(processes.stop_leftovers(home)) or found
