"""Redis URLs."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import SettingsError
from tidemill.redis.address import RedisAddress, node_urls


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", {"host": "cache", "port": 6379, "database": 0, "tls": False, "path": None}),
        ("redis://cache:7000/3", {"host": "cache", "port": 7000, "database": 3}),
        ("redis://", {"host": "localhost", "port": 6379}),
        ("redis://cache?db=5", {"database": 5}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("rediss://cache", {"tls": True, "verify": True, "ca_file": None}),
        ("rediss://cache?ssl_cert_reqs=none", {"verify": False}),
        ("rediss://cache?ssl_ca_certs=/etc/ca.pem", {"ca_file": "/etc/ca.pem"}),
        ("unix:///run/valkey.sock?db=2", {"path": "/run/valkey.sock", "host": None, "database": 2}),
        ("redis://:secret@cache", {"user": None, "password": "secret"}),
        ("redis://ada:p%40ss@cache", {"user": "ada", "password": "p@ss"}),
    ],
)
def test_the_parts_of_a_url(url: str, expected: dict[str, Any]) -> None:
    """Each form of URL gives its parts, with Redis' defaults."""
    address = RedisAddress.parse(url)
    assert {name: getattr(address, name) for name in expected} == expected


@pytest.mark.parametrize(
    "url", ["", "cache:6379", "http://cache", "redis://cache:port", "redis://cache:99999", "redis://cache/first", "unix://"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """The variable is named, with the right forms."""
    with pytest.raises(SettingsError, match=r"^REDIS_URL") as caught:
        RedisAddress.parse(url)
    assert "redis://" in caught.value.mend


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("redis+cluster://one:7000,two:7001,three", [("one", 7000), ("two", 7001), ("three", 6379)]),
        ("redis+cluster://ada:p%40ss@one,two:7001", [("one", 6379), ("two", 7001)]),
        ("redis+cluster://[::1]:7000,[::2]:7001/", [("::1", 7000), ("::2", 7001)]),
        ("rediss+cluster://one,two?ssl_cert_reqs=none", [("one", 6379), ("two", 6379)]),
        ("redis://one", []),
    ],
)
def test_the_nodes_of_a_cluster(url: str, places: list[tuple[str, int]]) -> None:
    """A cluster's URL names some of its nodes, all reached in the same way; any other URL names none."""
    nodes = RedisAddress.of_cluster(url)
    assert node_urls("redis://one:7000/3?a=b,c") == ["redis://one:7000/3?a=b,c"]
    assert [(node.host, node.port) for node in nodes] == places
    assert all(node.tls == url.startswith("rediss") and node.verify != ("none" in url) for node in nodes)
    assert {node.password for node in nodes} <= ({"p@ss"} if "@" in url else {None})


@pytest.mark.parametrize(
    "url", ["redis+cluster://one,two/3", "redis+cluster://one,two:port", "unix+cluster:///run/valkey.sock", "http+cluster://one"]
)
def test_what_is_no_cluster_is_refused(url: str) -> None:
    """A cluster has no other database, no socket, and good ports."""
    with pytest.raises(SettingsError, match=r"^REDIS_URL"):
        RedisAddress.of_cluster(url)


def test_another_node_is_reached_in_the_same_way() -> None:
    """User, password and encryption go with every node."""
    (node,) = RedisAddress.of_cluster("rediss+cluster://ada:secret@one:7000?ssl_ca_certs=ca.pem")
    other = node.at("two", 7001)
    assert (other.host, other.port, other.user, other.password, other.tls, other.ca_file) == ("two", 7001, "ada", "secret", True, "ca.pem")


def test_greetings_log_in_and_choose_the_database() -> None:
    """Commands appear only when they are needed."""
    assert RedisAddress.parse("redis://cache").greeting() == []
    assert RedisAddress.parse("redis://:secret@cache/2").greeting() == [(b"AUTH", "secret"), (b"SELECT", 2)]
    assert RedisAddress.parse("redis://ada:secret@cache").greeting() == [(b"AUTH", "ada", "secret")]


def test_secrets_are_not_shown() -> None:
    """Neither text nor repr of an address, nor the error about a broken URL, shows the password."""
    address = RedisAddress.parse("redis://ada:enigma@cache:7000")
    assert "enigma" not in str(address) + repr(address)
    with pytest.raises(SettingsError) as caught:
        RedisAddress.parse("redis://ada:enigma@cache:port")
    assert "enigma" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(user=st.text(min_size=1), password=st.text(min_size=1), database=st.integers(0, 15))
def test_any_user_and_password_survive_quoting(user: str, password: str, database: int) -> None:
    """Percent-encoded credentials come back as they were."""
    try:
        url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@cache/{database}"
    except UnicodeEncodeError:
        return
    address = RedisAddress.parse(url)
    assert (address.user, address.password, address.database) == (user, password, database)
