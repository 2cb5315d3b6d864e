"""The process manager: a `supervisord` of our own, its configuration, and the calls made to it."""

import configparser
import os
import shlex
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from supervisor.xmlrpc import Faults

from tidemill.local.processes import HOST, StackError

_POLL_SECONDS = 0.05
CHILD = str(Path(__file__).with_name("child.py"))
_PRIORITY = {"servers": 10, "services": 20}  # the highest is stopped first
# A process that ends within five seconds counts as one that failed to start: it is tried again after 1, 2, 3 ... seconds.
_PROGRAM = {
    "autostart": "false",
    "autorestart": "true",
    "startsecs": "5",
    "startretries": "20",
    "stopwaitsecs": "10",
    "killasgroup": "true",
    "redirect_stderr": "true",
    "stdout_logfile_maxbytes": "20MB",
    "stdout_logfile_backups": "1",
}


@dataclass(frozen=True)
class Program:
    """One process that the supervisor keeps alive."""

    name: str
    group: str  # servers or services
    command: Sequence[str]
    nice: int = 0  # the higher, the later it gets the processor
    folder: str | None = None  # below the data folder; None: where the stack was started
    environment: Mapping[str, str] = field(default_factory=dict)


class Process(msgspec.Struct, frozen=True):
    """What the supervisor says about one process."""

    name: str
    group: str
    statename: str  # STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN
    pid: int  # 0 when it is not alive
    start: int  # epoch seconds
    now: int  # epoch seconds


def child_command(name: str, tie: str, command: Sequence[str], nice: int = 0) -> list[str]:
    """Return the command that starts a process through `child`, without the slower parts of Python's start."""
    return [sys.executable, "-I", "-S", CHILD, name, tie, str(nice), *command]


def write_config(home: Path, port: int, password: str, programs: Sequence[Program]) -> Path:
    """Write the supervisor's configuration, readable by the owner alone, and return its path.

    The data folder appears in it only as ``%(here)s``, so that its name may hold characters that the file's syntax does not allow.
    """
    config = configparser.RawConfigParser()
    root = {"user": "root"} if os.geteuid() == 0 else {}  # without it supervisord warns at every start
    config["supervisord"] = {"logfile": os.devnull, "logfile_maxbytes": "0", "pidfile": "%(here)s/supervisord.pid", **root}
    config["inet_http_server"] = {"port": f"{HOST}:{port}", "username": "tidemill", "password": password}
    config["rpcinterface:supervisor"] = {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"}
    for group, priority in _PRIORITY.items():
        names = [program.name for program in programs if program.group == group]
        if names:
            config[f"group:{group}"] = {"programs": ",".join(names), "priority": str(priority)}
    for program in programs:
        command = shlex.join(child_command(program.name, "supervisor", program.command, program.nice))
        environment = ",".join(f'{name}="{value}"' for name, value in program.environment.items())
        folder = {"directory": f"%(here)s/{program.folder}"} if program.folder else {}
        config[f"program:{program.name}"] = {
            **_PROGRAM,
            **folder,
            "command": command.replace("%", "%%").replace(" ;", " '';").replace(" #", " ''#"),  # would begin a comment
            "environment": environment,
            "stdout_logfile": f"%(here)s/logs/{program.name}.log",
        }
    path = home / "supervisor.conf"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        config.write(file)
    return path


def command(config: Path) -> list[str]:
    """Return the supervisor's own command."""
    return [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c", str(config)]


class Supervisor:
    """The calls to a running supervisor. Each raises OSError when it does not run or is stopping, and `StackError` when it refuses."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            with xmlrpc.client.ServerProxy(f"{self.url}/RPC2") as server:
                return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise ConnectionError("the supervisor is stopping") from None
            raise StackError(f"the supervisor refuses {method}{arguments}: {fault.faultString}") from None

    def ping(self) -> None:
        """Return if the supervisor runs and is not stopping."""
        self._call("getState")

    def processes(self) -> dict[str, Process]:
        """Return every process by its name, in the order of the configuration's groups."""
        return {process.name: process for process in msgspec.convert(self._call("getAllProcessInfo"), list[Process])}

    def start(self, name: str) -> None:
        """Start a stopped process and return at once."""
        self._call("startProcess", self._full(name), False)

    def stop(self, name: str) -> None:
        """Stop a process (SIGTERM, SIGKILL after ten seconds) and return when it has ended."""
        self._call("stopProcess", self._full(name), False)
        while self.processes()[name].statename == "STOPPING":  # asked to wait by itself, the supervisor takes a whole processor meanwhile
            time.sleep(_POLL_SECONDS)

    def _full(self, name: str) -> str:
        return f"{self.processes()[name].group}:{name}"
