"""The parts of a Redis URL: where to connect, how, and as which user.

redis://[user:password@]host[:port][/db]     TCP rediss://...[?ssl_ca_certs=path][&ssl_cert_reqs=none]   TLS
unix://[user:password@]/path/to/socket[?db=n] redis+cluster://[user:password@]host[:port][,host[:port]...]   a Redis Cluster: any of its
nodes; these name the others; rediss+cluster:// for TLS
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from tidemill.errors import SettingsError

P = TypeVar("P", bound=asyncio.Protocol)

_CLUSTER = "+cluster://"


@dataclass(frozen=True)
class RedisAddress:
    """A parsed URL. Exactly one of `host` and `path` is set; `str()` shows no secret."""

    host: str | None
    port: int
    path: str | None
    database: int
    user: str | None
    password: str | None = field(repr=False)
    tls: bool
    ca_file: str | None
    verify: bool

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Parse a URL. Raises SettingsError (which never shows the password)."""
        try:
            parts = urlsplit(url)
            query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
            unix = parts.scheme == "unix"
            if parts.scheme not in ("redis", "rediss", "unix") or (unix and not parts.path):
                raise ValueError("unknown form")
            return cls(
                host=None if unix else parts.hostname or "localhost",
                port=parts.port or 6379,
                path=unquote(parts.path) if unix else None,
                database=int(query.get("db") or ("0" if unix else parts.path.strip("/") or "0")),
                user=unquote(parts.username) if parts.username else None,
                password=unquote(parts.password) if parts.password else None,
                tls=parts.scheme == "rediss",
                ca_file=query.get("ssl_ca_certs"),
                verify=query.get("ssl_cert_reqs", "required") != "none",
            )
        except ValueError:
            raise SettingsError(
                "REDIS_URL cannot be understood",
                mend="write redis://[user:password@]host:port/db, rediss:// for TLS, unix:///path, or redis+cluster://host:port,host:port for a "
                "cluster; escape special characters in a password",
            ) from None

    @classmethod
    def of_cluster(cls, url: str) -> list[RedisAddress]:
        """The nodes that the URL of a cluster names; none for the URL of one server. Raises SettingsError."""
        if _CLUSTER not in url:
            return []
        nodes = [cls.parse(node) for node in node_urls(url)]
        if nodes[0].database or nodes[0].path:
            raise SettingsError("REDIS_URL names a database or a socket of a cluster", mend="a cluster has hosts and database 0 only")
        return nodes

    def at(self, host: str, port: int) -> RedisAddress:
        """The address of another node, with the same user and options."""
        return replace(self, host=host, port=port)

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"{self.host}:{self.port}"

    def greeting(self) -> list[tuple[bytes | str | int, ...]]:
        """The commands that log in and choose the database, in order."""
        commands: list[tuple[bytes | str | int, ...]] = []
        if self.password is not None:
            commands.append((b"AUTH", self.user, self.password) if self.user else (b"AUTH", self.password))
        if self.database:
            commands.append((b"SELECT", self.database))
        return commands

    async def connect(self, protocol: Callable[[], P]) -> P:
        """Open a connection with a protocol of this factory. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(protocol, self.path))[1]
        assert self.host is not None
        return (await loop.create_connection(protocol, self.host, self.port, ssl=self._tls_context() if self.tls else None))[1]

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def node_urls(url: str) -> list[str]:
    """One URL for each node that the URL of a cluster names; the URL of one server unchanged."""
    scheme, mark, rest = url.partition(_CLUSTER)
    if not mark:
        return [url]
    place = re.split("[/?]", rest, maxsplit=1)[0]
    login, at, hosts = place.rpartition("@")
    return [f"{scheme}://{login}{at}{host}{rest.removeprefix(place)}" for host in hosts.split(",")]
