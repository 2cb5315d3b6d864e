"""The addresses of a running local stack: ``stack.json`` in its data folder, written once everything is ready."""

import os
from pathlib import Path

import msgspec


class Addresses(msgspec.Struct, frozen=True):
    """What a command or a test needs to talk to a running stack."""

    kafka: str  # bootstrap servers
    redis_url: str
    offline: str  # path or URL
    project: str | None
    urls: dict[str, str]  # service -> http://host:port
    pids: dict[str, int]  # process -> pid when the stack became ready; a restarted process has another
    owner: int  # pid of the process whose end ends the stack, 0 when it was detached
    supervisor: str  # XML-RPC address with its password

    def write(self, home: Path) -> None:
        """Write ``stack.json``, readable by the owner alone (addresses may hold passwords)."""
        draft = home / "stack.json.new"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1))
        draft.replace(home / "stack.json")


def home_folder(home: Path | None = None) -> Path:
    """Return the data folder: the one given, else ``TIDEMILL_HOME``, else ``.tidemill`` in the working directory."""
    return (home or Path(os.environ.get("TIDEMILL_HOME", ".tidemill"))).absolute()


def find(home: Path | None = None) -> Addresses | None:
    """Return the addresses of the stack that runs in this data folder, or None when none is running there."""
    folder = home_folder(home)
    try:
        content = (folder / "stack.json").read_bytes()
    except FileNotFoundError:
        return None
    from tidemill.local.processes import running  # noqa: PLC0415 - needs the extra `local`, which the process that wrote the file has

    return msgspec.json.decode(content, type=Addresses) if running(folder, "supervisor") else None
