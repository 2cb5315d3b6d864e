"""The commands of the local stack: up, down, status, logs, restart, reset.

Each imports `tidemill.local` when it runs, so that the command line works where the extra ``local`` is not installed.
"""

import asyncio
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tidemill.cli.alerts import alerts_line
from tidemill.cli.catalogue import Started, after_start, at_start
from tidemill.cli.console import console
from tidemill.cli.late import late_line
from tidemill.cli.retraining import status_line
from tidemill.cli.target import Target
from tidemill.declarations.project import Project, load_project
from tidemill.errors import MissingExtra, ProjectError, TidemillError
from tidemill.local.addresses import Addresses, find, home_folder
from tidemill.local.services import choose, not_ready
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions
from tidemill.streams.view_logs import check_logs, ensure_logs

if TYPE_CHECKING:
    from tidemill.local.stack import Stack

_KEPT = "All others run on. See `tidemill status` and `tidemill logs SERVICE`; then `tidemill restart SERVICE`, or `tidemill down`."
Home = Annotated[Path | None, typer.Option(help="Folder of the stack's data.", envvar="TIDEMILL_HOME", show_default=".tidemill")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: a free one, chosen once and kept.")]


def up(
    home: Home = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
    service: Annotated[list[str] | None, typer.Option(help="Start this service only; may be repeated.")] = None,
    kafka_port: Port = 0,
    valkey_port: Port = 0,
    port: Annotated[list[str] | None, typer.Option(help="SERVICE=PORT; may be repeated.")] = None,
    timeout_seconds: Annotated[float, typer.Option(help="How long servers, then services, may take to be ready.")] = 180.0,
) -> None:
    """Start Kafka, Valkey and every service, and stop them on Ctrl-C. A service that is not ready in time stops none of the others.

    KAFKA_BOOTSTRAP_SERVERS, REDIS_URL and TIDEMILL_OFFLINE name servers that run elsewhere; those are not started.
    """
    _require_local()
    from tidemill.local.stack import External, Stack

    spec = os.environ.get("TIDEMILL_PROJECT")
    if not spec:
        raise ProjectError("no project is named", mend="pass `tidemill --project PROJECT up`, or set TIDEMILL_PROJECT")
    project = load_project(spec)  # a mistake in it is reported before anything starts
    begun: list[Started] = []
    ports = {"kafka": kafka_port, "valkey": valkey_port, **_service_ports(port or [])}
    stack = Stack(
        home, spec, choose(service or [], _wished(project)), external=External.from_environment(), detach=detach, timeout_seconds=timeout_seconds, keep=True,
        ports={name: number for name, number in ports.items() if number}, prepare=lambda stack: begun.extend(_prepare(project, spec, stack)),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with console.status("starting ..."):
            stack.start()
        if stack.unready:
            typer.echo(f"error: {stack.unready.message}\n{_KEPT}", err=True)
        console.print(_addresses(home_folder(home)))
        for started in () if stack.unready else begun:
            after_start(_target(project, spec, stack), started, wait={"features", "offline"} <= stack.urls.keys())
        if detach and stack.unready:
            raise typer.Exit(1)
        if not detach:
            console.print("Ctrl-C stops it.")
            code = stack.wait()
            console.print("stopped" if code == 0 else f"the supervisor ended with code {code}: see {stack.log('supervisor')}")
            raise typer.Exit(1 if code else 0)
    except KeyboardInterrupt:
        console.print("stopping ...")
        stack.stop()


def down(home: Home = None) -> None:
    """Stop the stack of this folder, however it was started."""
    _require_local()
    from tidemill.local.stack import stop

    folder = home_folder(home)
    console.print("stopped" if stop(folder) else f"nothing runs in {folder}")


def status(home: Home = None) -> None:
    """Show every process of the running stack, what ended by itself and why, how many events came too late, and which alerts are open; exit code 1 unless all
    are ready."""
    _require_local()
    from tidemill.local.ended import ended
    from tidemill.local.stack import log_file
    from tidemill.local.supervisor import Supervisor

    addresses = _running(home)
    table = Table("process", "state", "pid", "up for", "ready")
    all_ready = True
    for name, process in Supervisor(addresses.supervisor).processes().items():
        reason = not_ready(addresses.urls[name]) if name in addresses.urls else None
        ready = process.pid > 0 and reason is None
        all_ready &= ready
        table.add_row(
            name, process.statename, str(process.pid or ""), f"{process.now - process.start} s", "yes" if ready else reason or "no"
        )
    console.print(table)
    fallen = map(str, ended(log_file(home_folder(home), "supervisor").parent))
    for said in filter(None, (*fallen, late_line(addresses), alerts_line(addresses), status_line(addresses))):
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all_ready else 1)


def logs(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="A service, kafka, valkey or supervisor.")],
    home: Home = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines arrive, until Ctrl-C.")] = False,
) -> None:
    """Print the last lines of a process' log."""
    _require_local()
    from tidemill.local.processes import last_lines
    from tidemill.local.stack import log_file

    file = log_file(home_folder(home), name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.log")))
        raise TidemillError(f"there is no log {file}", mend=f"there are logs of: {known or 'nothing yet'}")
    with file.open(errors="replace") as log:
        log.seek(0, 2)
        typer.echo(last_lines(file, lines))
        try:
            while follow:
                typer.echo(log.read(), nl=False)
                time.sleep(0.2)
        except KeyboardInterrupt:
            return


def restart(
    service: Annotated[list[str], typer.Argument(metavar="SERVICE", help="Services, kafka or valkey, one after the other.")],
    home: Home = None,
    timeout_seconds: Annotated[float, typer.Option(help="How long each may take to be ready.")] = 180.0,
) -> None:
    """Stop processes of the running stack in good order and start them again; the others go on."""
    _require_local()
    from tidemill.local.stack import Stack

    stack = Stack.attached(home_folder(home), _running(home), timeout_seconds)
    for name in service:
        stack.restart(name)
        console.print(f"{name} runs again")


def reset(home: Home = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete all data of the local stack: topics, values, tables, models, logs. It must have been stopped before.

    What lies on servers that run elsewhere stays.
    """
    _require_local()
    from tidemill.local.stack import data_of, remove

    folder = home_folder(home)
    if find(home) is not None:
        raise TidemillError(f"a stack runs in {folder}", mend="stop it with `tidemill down`")
    found = data_of(folder)
    if not found:
        console.print(f"nothing is in {folder}")
        return
    console.print(f"{folder}: {', '.join(path.name for path in found)}")
    if not yes and not typer.confirm("delete all of it for ever?"):
        raise typer.Exit(1)
    remove(folder)
    console.print("deleted")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (up, down, status, logs, restart, reset):
        app.command()(command)


def _require_local() -> None:
    if sys.platform == "win32":
        raise TidemillError("the local stack runs on Linux and macOS", mend="use docker compose, or WSL")
    for package in ("jgo", "psutil", "redis", "supervisor"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "local")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _prepare(project: Project, spec: str, stack: "Stack") -> list[Started]:
    """Makes the topics, and begins to put the project in force. Returns what has to be finished while services run."""
    if not stack.kafka:  # the chosen services need none
        return []
    settings = KafkaSettings(bootstrap_servers=stack.kafka)
    before = asyncio.run(read_definitions(settings, project.name))
    lake = importlib.util.find_spec("deltalake") is not None  # else there is no archive, from which a version could be filled
    if not before.number:
        # With an archive the plan makes the topics: it fills only logs that nobody else has made.
        asyncio.run(check_logs(settings, project, project.views.values()) if lake else ensure_logs(settings, project))
    if not lake:
        return []
    found = at_start(_target(project, spec, stack), before)
    return [] if found is None else [found]


def _target(project: Project, spec: str, stack: "Stack") -> Target:
    return Target(project, spec, stack.kafka, stack.redis_url, stack.offline, stack.urls)


def _wished(project: Project) -> list[str]:
    """The services that this project wants beside those that always run."""
    return ["retraining"] if any(model.retrain is not None or model.online is not None for model in project.models.values()) else []


def _service_ports(given: list[str]) -> dict[str, int]:
    ports = {}
    for pair in given:
        name, _, number = pair.partition("=")
        choose([name])
        if not number.isdigit() or not 0 < int(number) < 65536:
            raise TidemillError(f"--port {pair} is not SERVICE=PORT", mend="for example --port serving=8001")
        ports[name] = int(number)
    return ports


def _running(home: Path | None) -> Addresses:
    addresses = find(home)
    if addresses is None:
        raise TidemillError(f"no stack runs in {home_folder(home)}", mend="start one with `tidemill up`")
    return addresses


def _addresses(home: Path) -> Table:
    addresses = _running(home)
    table = Table("what", "where", title="tidemill is up")
    for name, where in {
        "kafka": addresses.kafka,
        "valkey": addresses.redis_url,
        "offline store": addresses.offline,
        **addresses.urls,
    }.items():
        table.add_row(name, where)
    table.add_row("logs", str(home / "logs"))
    return table
