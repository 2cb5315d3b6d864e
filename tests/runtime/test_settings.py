"""Settings: what the environment says, and what is said when it is wrong."""

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from tidemill.errors import SettingsError
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings, Settings

ALL: list[type[Settings]] = [KafkaSettings, RedisSettings, OfflineSettings, HttpSettings, ProjectSettings]
GIVEN = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker-1:9092,broker-2:9092",
    "REDIS_URL": "redis://cache:6379/0",
    "TIDEMILL_OFFLINE": "/data/offline",
    "TIDEMILL_HOST": "0.0.0.0",  # noqa: S104
    "TIDEMILL_PORT": "9000",
    "TIDEMILL_PROJECT": "flights",
}

SECRET, HIDDEN = "enigma", "***"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ALL:
        for field in kind.model_fields.values():
            monkeypatch.delenv(str(field.validation_alias), raising=False)


def test_all_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class takes its own variables."""
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    assert KafkaSettings.load().bootstrap_servers == "broker-1:9092,broker-2:9092"
    assert RedisSettings.load().url == "redis://cache:6379/0"
    assert OfflineSettings.load().root == "/data/offline"
    assert (HttpSettings.load().host, HttpSettings.load().port) == ("0.0.0.0", 9000)  # noqa: S104
    assert ProjectSettings.load().project == "flights"


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        (KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS"),
        (RedisSettings, "REDIS_URL"),
        (OfflineSettings, "TIDEMILL_OFFLINE"),
        (ProjectSettings, "TIDEMILL_PROJECT"),
    ],
)
def test_a_missing_variable_is_named_with_its_mend(kind: type[Settings], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty are the same, and the error says what to set."""
    for empty in (False, True):
        if empty:
            monkeypatch.setenv(variable, "")
        with pytest.raises(SettingsError) as caught:
            kind.load()
        assert caught.value.message == f"{variable} is not set"
        assert caught.value.mend.startswith(f"set {variable} to ")


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        (RedisSettings, "REDIS_URL", "localhost:6379"),
        (HttpSettings, "TIDEMILL_PORT", "many"),
        (HttpSettings, "TIDEMILL_PORT", "70000"),
        (KafkaSettings, "KAFKA_SECURITY_PROTOCOL", "QUIC"),
    ],
)
def test_a_wrong_value_is_named(kind: type[Settings], variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable at fault is named and its form explained."""
    for name, good in GIVEN.items():
        monkeypatch.setenv(name, good)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"^{variable}: ") as caught:
        kind.load()
    assert f"set {variable} to" in caught.value.mend


def test_values_may_be_passed_and_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests and tools construct settings by field name, whatever the environment says."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    assert KafkaSettings(bootstrap_servers="here:9092").bootstrap_servers == "here:9092"


def test_settings_are_frozen() -> None:
    """Nobody changes settings while a service runs."""
    settings = HttpSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_secrets_are_masked_wherever_they_are_shown() -> None:
    """Neither masked() nor repr() nor str() shows a password, alone or inside a URL."""
    redis = RedisSettings(url=f"rediss://ada:{SECRET}@cache:6380/1")
    kafka = KafkaSettings(bootstrap_servers="b:9092", security_protocol="SASL_SSL", sasl_username="ada", sasl_password=SECRET)
    assert redis.masked() == {"REDIS_URL": "rediss://***@cache:6380/1"}
    assert kafka.masked()["KAFKA_SASL_PASSWORD"] == HIDDEN
    assert kafka.masked()["KAFKA_SASL_USERNAME"] == "ada"
    for shown in (repr(redis), str(redis), repr(kafka), str(kafka)):
        assert SECRET not in shown


def test_unset_values_are_left_out_of_the_log() -> None:
    """What is optional and not given is not shown."""
    assert "KAFKA_SASL_PASSWORD" not in KafkaSettings(bootstrap_servers="b:9092").masked()


def test_client_options_follow_the_security_protocol() -> None:
    """Encryption brings a TLS context and SASL brings user and password, each only when asked for."""
    plain = KafkaSettings(bootstrap_servers="b:9092").client_options()
    assert plain == {"bootstrap_servers": "b:9092", "security_protocol": "PLAINTEXT"}
    secure = KafkaSettings(
        bootstrap_servers="b:9092", security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="ada", sasl_password=SECRET
    ).client_options()
    assert isinstance(secure["ssl_context"], ssl.SSLContext)
    assert secure["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (secure["sasl_plain_username"], secure["sasl_plain_password"]) == ("ada", SECRET)


def test_a_missing_authority_file_is_told(tmp_path: Path) -> None:
    """A path that is not there fails when used, naming no secret."""
    settings = KafkaSettings(bootstrap_servers="b:9092", security_protocol="SSL", ssl_cafile=str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="KAFKA_SSL_CAFILE"):
        settings.client_options()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_has_a_variable_and_a_mend(kind: type[Settings]) -> None:
    """The text an error is made of exists for every field."""
    for field in kind.model_fields.values():
        assert isinstance(field.validation_alias, str)
        assert field.description
