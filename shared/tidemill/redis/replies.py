"""What an error reply of Redis means: retry later, ask another node, or the command is wrong."""

from __future__ import annotations

import re

from tidemill.errors import NoScript, StoreError, StoreUnavailable

# Codes that ask for a retry: the same command succeeds once the server is well again.
_AWAY = {"LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS", "UNBLOCKED"}
_REDIRECTION = re.compile(r"(MOVED|ASK) \d+ (.*):(\d+)")


class Demoted(StoreUnavailable):
    """The server has become a replica, so a fail-over happened: connect again; the address may lead to another server by now."""


class Redirected(StoreUnavailable):
    """Another node of the cluster has the slot: for good, or (`asking`) for this command only, after ASKING. This node did nothing.

    `host` is None when it is the host that was asked.
    """

    def __init__(self, text: str, host: str | None, port: int, *, asking: bool) -> None:
        super().__init__(
            f"Redis answered: {text}", mend="if REDIS_URL names one node of a cluster, write it as redis+cluster://host:port; else retry"
        )
        self.host, self.port, self.asking = host, port, asking


def reply_error(text: str) -> StoreUnavailable | StoreError:
    """The error that an error reply stands for."""
    code = text.partition(" ")[0]
    if found := _REDIRECTION.fullmatch(text):
        return Redirected(text, known_host(found[2]), int(found[3]), asking=code == "ASK")
    if code == "NOSCRIPT":
        return NoScript(text)
    if code in _AWAY or code == "READONLY":
        kind = Demoted if code == "READONLY" else StoreUnavailable
        return kind(f"Redis answered: {text}", mend="retry; if it stays so, look at the server's log and role")
    mend = "check user and password in REDIS_URL" if code in ("NOAUTH", "WRONGPASS", "NOPERM") else ""
    return StoreError(text, mend=mend)


def known_host(name: str | None) -> str | None:
    """The host of a node as the cluster names it; None stands for the host that was asked."""
    return name if name not in (None, "", "?") else None
