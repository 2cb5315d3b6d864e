"""What error replies become."""

import pytest

from tidemill.errors import NoScript, StoreError, StoreUnavailable
from tidemill.redis.replies import Demoted, Redirected, reply_error


@pytest.mark.parametrize(
    ("text", "host", "port", "asking"),
    [
        ("MOVED 3999 127.0.0.1:6381", "127.0.0.1", 6381, False),
        ("ASK 3999 cache-2.example:6381", "cache-2.example", 6381, True),
        ("MOVED 3999 :6381", None, 6381, False),
        ("MOVED 3999 ?:6381", None, 6381, False),
        ("ASK 3999 ::1:6381", "::1", 6381, True),
    ],
)
def test_redirections(text: str, host: str | None, port: int, asking: bool) -> None:
    """A redirection says where to, and whether for good."""
    error = reply_error(text)
    assert isinstance(error, Redirected)
    assert (error.host, error.port, error.asking) == (host, port, asking)
    assert "redis+cluster://" in error.mend


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("READONLY You can't write against a read only replica.", Demoted),
        ("NOSCRIPT No matching script.", NoScript),
        ("TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailable),
        ("CLUSTERDOWN Hash slot not served", StoreUnavailable),
        ("LOADING Valkey is loading the dataset in memory", StoreUnavailable),
        ("CROSSSLOT Keys in request don't hash to the same slot", StoreError),
        ("MOVED", StoreError),
        ("ASKED 1 a:1", StoreError),
        ("", StoreError),
    ],
)
def test_the_other_errors(text: str, kind: type[Exception]) -> None:
    """Not now, gone, or wrong: what nobody knows is wrong."""
    assert type(reply_error(text)) is kind


def test_a_refused_user_is_told_where_to_look() -> None:
    """Who may not log in is sent to the variable that says as whom."""
    error = reply_error("WRONGPASS invalid username-password pair")
    assert isinstance(error, StoreError)
    assert "REDIS_URL" in error.mend
