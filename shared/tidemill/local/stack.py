"""The local stack: start, readiness, stop, and the handles that tests, demo and benchmarks use."""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tidemill.local import kafka, kafka_aot, processes, services, supervisor, valkey
from tidemill.local.addresses import Addresses, find, home_folder
from tidemill.local.processes import HOST, NotReady, StackError
from tidemill.local.said import in_words
from tidemill.local.services import SERVICES, LocalService
from tidemill.local.supervisor import Program, Supervisor

_POLL_SECONDS = 0.05
_STOP_SECONDS = 45.0  # of the supervisor: ten for the services, ten for the servers, and a margin
_LAST_LINES = 25
_STOPPED = {"STOPPED", "EXITED", "FATAL"}
_MADE = ("kafka", "valkey", "offline", "logs", "run", "ports.json", "stack.json", "supervisor.conf", "supervisor.log")
_PORTS = {"kafka": ("kafka", "kafka-controller"), "valkey": ("valkey",)}


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
    """Kafka, Valkey and services as supervised processes, with their data in one folder.

    Use it as a context manager, or call `start` and `stop`. A process that dies is restarted. When the process that started
    the stack dies, however it dies, the whole stack stops (unless `detach`). Errors are `StackError`.
    After `start`, `kafka`, `redis_url`, `offline` and `urls` (by service) are the addresses.
    """

    home: Path | None = None  # None: TIDEMILL_HOME, else .tidemill
    project: str | None = None  # TIDEMILL_PROJECT: a path or a module
    services: Sequence[LocalService] = SERVICES
    servers: Sequence[str] | None = None  # kafka, valkey; None: what the services need
    external: External = field(default_factory=External)
    ports: Mapping[str, int] = field(default_factory=dict)  # by process name; others are chosen once and kept
    environment: Mapping[str, str] = field(default_factory=dict)  # more variables for every process
    prepare: Callable[["Stack"], None] | None = None  # run once the servers answer, before any service starts: topics
    detach: bool = False
    timeout_seconds: float = 180.0  # for the servers to answer, and again for the services to be ready
    keep: bool = False  # a service that is not ready stops nothing: `start` returns, and `unready` says why
    unready: NotReady | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._home = home_folder(self.home)
        if "%" in str(self._home):
            raise StackError(
                f"the process manager cannot take the % in the data folder's name {self._home}", mend="choose another with --home"
            )
        needed = {need for service in self.services for need in service.needs} if self.servers is None else set(self.servers)
        outside = {"kafka": self.external.kafka, "valkey": self.external.redis_url}
        self._servers = [name for name in outside if name in needed]
        self._own = [name for name in self._servers if not outside[name]]
        self.kafka = self.external.kafka or ""
        self.redis_url = self.external.redis_url or ""
        self.offline = self.external.offline or str(self._home / "offline")
        self.urls: dict[str, str] = {}
        self._launched: subprocess.Popen[bytes] | None = None

    @classmethod
    def attached(cls, home: Path, addresses: Addresses, timeout_seconds: float) -> Self:
        """The stack that runs in a data folder, to look at its processes and to restart them; it is not ours to stop."""
        servers = External(addresses.kafka, addresses.redis_url, addresses.offline)
        stack = cls(home, addresses.project, services=(), external=servers, timeout_seconds=timeout_seconds)
        stack.urls, stack.supervisor = addresses.urls, Supervisor(addresses.supervisor)
        return stack

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when all is ready; on any failure stop everything and raise; see `keep`."""
        for folder in ("run", "logs"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        with (self._home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two starts at the same time, the second finds the first one running
            clear(self._home)
            if "kafka" in self._own:
                kafka_aot.make()
            try:
                ports = self._assign_ports()
                self._launch_supervisor(ports)
                self._start_servers(ports)
                if self.prepare:
                    self.prepare(self)
                self._start_services()
            except BaseException:
                self.stop()
                raise

    def _assign_ports(self) -> dict[str, int]:
        names = ["supervisor", *(port for name in self._own for port in _PORTS[name]), *(service.name for service in self.services)]
        ports = processes.assign_ports(self._home, names, self.ports)
        if "kafka" in self._own:
            self.kafka = f"{HOST}:{ports['kafka']}"
        if "valkey" in self._own:
            self.redis_url = f"redis://{HOST}:{ports['valkey']}/0"
        self.urls = {service.name: f"http://{HOST}:{ports[service.name]}" for service in self.services}
        return ports

    def _launch_supervisor(self, ports: Mapping[str, int]) -> None:
        password = secrets.token_hex(16)
        config = supervisor.write_config(self._home, ports["supervisor"], password, self._programs(ports))
        self.supervisor = Supervisor(f"http://tidemill:{password}@{HOST}:{ports['supervisor']}")
        command = supervisor.child_command("supervisor", "none" if self.detach else str(os.getpid()), supervisor.command(config))
        with self.log("supervisor").open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop the others in order.
            self._launched = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + self.timeout_seconds
        while self._launched.poll() is None and time.monotonic() < deadline:
            try:
                self.supervisor.ping()
            except OSError:
                time.sleep(_POLL_SECONDS)
            else:
                return
        raise StackError(f"the supervisor does not answer. {self._last_lines('supervisor')}")

    def _programs(self, ports: Mapping[str, int]) -> list[Program]:
        servers = []
        if "kafka" in self._own:
            servers.append(Program("kafka", "servers", kafka.command(), kafka.NICE, folder="kafka"))
        if "valkey" in self._own:
            servers.append(Program("valkey", "servers", valkey.command(ports["valkey"]), folder="valkey"))
        return servers + [
            Program(
                service.name,
                "services",
                [sys.executable, "-m", service.module],
                environment={"TIDEMILL_PORT": str(ports[service.name]), "TIDEMILL_NICE": str(service.nice)},
            )
            for service in self.services
        ]

    def _environment(self) -> dict[str, str]:
        ours = {
            "TIDEMILL_HOME": str(self._home),
            "TIDEMILL_HOST": HOST,
            "TIDEMILL_OFFLINE": self.offline,
            "TIDEMILL_RUN_FOLDER": str(self._home / "run"),
            "TIDEMILL_PROJECT": self.project,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        return {**os.environ, **{name: value for name, value in ours.items() if value}, **self.environment}

    def _start_servers(self, ports: Mapping[str, int]) -> None:
        if "valkey" in self._own:
            (self._home / "valkey").mkdir(exist_ok=True)
            self.supervisor.start("valkey")
        if "kafka" in self._own:
            kafka.prepare(self._home / "kafka", ports["kafka"], ports["kafka-controller"])
            self.supervisor.start("kafka")
        self._wait(self._servers, failing={"BACKOFF", "EXITED", "FATAL"})

    def _start_services(self) -> None:
        for service in self.services:
            self.supervisor.start(service.name)
        try:
            self._wait([*self.urls], failing={"BACKOFF", "EXITED", "FATAL"})
        except NotReady as error:
            if not self.keep:
                raise
            self.unready = error
        pids = {name: process.pid for name, process in self.supervisor.processes().items()}
        owner = 0 if self.detach else os.getpid()
        Addresses(self.kafka, self.redis_url, self.offline, self.project, self.urls, pids, owner, self.supervisor.url).write(self._home)

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
        if not processes.running(self._home, "supervisor"):  # by now it could belong to another stack
            stop(self._home)

    def wait(self) -> int:
        """Wait until the stack is stopped from elsewhere, and return the supervisor's exit code: 0 when in good order."""
        assert self._launched, "the stack was not started here"
        return self._launched.wait()

    def log(self, name: str) -> Path:
        """Return the path of the log of a process, or of the supervisor."""
        return log_file(self._home, name)

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
        """Stop one process in good order, if it runs, start it again and return when it is ready. Raises `StackError`."""
        known = self.supervisor.processes()
        if name not in known:
            raise StackError(f"no process {name!r} is part of the stack in {self._home}", mend=f"there are {', '.join(known)}")
        if known[name].statename not in _STOPPED:  # one that crashes at each start is about to start again
            self.halt(name)
        self.resume(name)

    def wait_ready(self, *names: str) -> None:
        """Return when these processes, all of them by default, are ready. Raises `StackError` after the timeout."""
        self._wait(names or (*self._servers, *self.urls), failing={"FATAL"})

    def _wait(self, names: Sequence[str], failing: set[str]) -> None:
        """Poll until all are ready. A process in a failing state, or the timeout, ends the wait: NotReady."""
        deadline = time.monotonic() + self.timeout_seconds
        waiting = list(names)
        while waiting:
            try:
                known = self.supervisor.processes()
            except OSError as error:
                raise StackError(f"the stack was stopped meanwhile. {self._last_lines('supervisor')}") from error
            reasons = {name: self._not_ready(name) for name in waiting}
            waiting = [name for name, reason in reasons.items() if reason is not None]
            for name in waiting:
                if name in known and known[name].statename in failing:
                    raise NotReady(f"{name} ended instead of becoming ready. {self._last_lines(name)}")
            if waiting and time.monotonic() > deadline:
                said = "\n".join(f"{name}: {reasons[name]}. {self._last_lines(name)}" for name in waiting)
                raise NotReady(f"not ready after {self.timeout_seconds:g} s: {', '.join(waiting)}\n{said}")
            time.sleep(_POLL_SECONDS if waiting else 0)

    def _not_ready(self, name: str) -> str | None:
        if name == "kafka":
            return kafka.not_ready(self.kafka)
        return valkey.not_ready(self.redis_url) if name == "valkey" else services.not_ready(self.urls[name])

    def _last_lines(self, name: str) -> str:
        file = self.log(name)
        lines = "\n".join(map(in_words, processes.last_lines(file, _LAST_LINES).splitlines()))
        return f"Last lines of {file}:\n{lines}" if lines else "It was not started here: check its address"


def log_file(home: Path, name: str) -> Path:
    """Return the path of a process' log."""
    return home / "logs" / f"{name}.log"


def data_of(home: Path) -> list[Path]:
    """What a stack has made in its data folder."""
    return [path for name in _MADE if (path := home / name).exists()]


def remove(home: Path) -> None:
    """Delete what a stack has made in its data folder; other files there stay."""
    for path in data_of(home):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def clear(home: Path) -> None:
    """End the processes that earlier runs left in this data folder. Raises `StackError` when a stack runs there."""
    addresses = find(home)
    if addresses and (addresses.owner == 0 or processes.alive(addresses.owner)):  # else it is about to stop
        with contextlib.suppress(OSError):
            Supervisor(addresses.supervisor).ping()
            raise StackError(f"a stack runs in {home} already", mend="stop it with `tidemill down`, or choose another folder with --home")
    stop(home)


def stop(home: Path) -> bool:
    """Stop the stack of this data folder, also one that another process started. Return whether there was anything to stop."""
    (home / "stack.json").unlink(missing_ok=True)
    found = processes.stop(home, "supervisor", _STOP_SECONDS)
    return bool(processes.stop_leftovers(home)) or found
