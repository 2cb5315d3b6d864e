"""Settings from the environment: one frozen class per dependency, and one group of classes per service.

    kafka = KafkaSettings.load()          # raises SettingsError naming the variable and the mend
    KafkaSettings(bootstrap_servers=...)  # tests and tools pass values instead
    AuditSettings.load()                  # a group: raises one SettingsError that names all missing or wrong variables

Importing this module reads nothing.
"""

from __future__ import annotations

import dataclasses
import re
import ssl
from dataclasses import dataclass
from typing import Any, Literal, Self, get_type_hints

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tidemill.errors import SettingsError

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class Settings(BaseSettings):
    """Base of all settings: frozen, read from the environment, masked when shown."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True, str_strip_whitespace=True)

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError naming every variable that is missing or wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise cls._explained(error) from None

    @classmethod
    def _explained(cls, error: ValidationError) -> SettingsError:
        by_variable = {cls._variable(name): field for name, field in cls.model_fields.items()}
        wrong, mends = [], []
        for detail in error.errors():
            place = str(detail["loc"][0]) if detail["loc"] else cls.__name__
            variable = place if place in by_variable else cls._variable(place) if place in cls.model_fields else place
            wrong.append(f"{variable} is not set" if detail["type"] == "missing" else f"{variable}: {detail['msg']}")
            if variable in by_variable:
                mends.append(f"set {variable} to {by_variable[variable].description}")
        return SettingsError(" and ".join(wrong), mend=" and ".join(mends))

    @classmethod
    def _variable(cls, name: str) -> str:
        alias = cls.model_fields[name].validation_alias
        return alias if isinstance(alias, str) else name

    def masked(self) -> dict[str, Any]:
        """Variable name -> value, safe to log: secrets and credentials inside URLs are hidden; unset variables are left out."""
        shown = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None:
                secret = not field.repr
                shown[self._variable(name)] = "***" if secret else _CREDENTIALS.sub("***@", value) if isinstance(value, str) else value
        return shown

    def __repr_args__(self) -> Any:
        return self.masked().items()


class KafkaSettings(Settings):
    """How to reach Kafka. The last five settings are for clusters with encryption or passwords."""

    bootstrap_servers: str = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS", min_length=1, description="the brokers, for example localhost:9092"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", validation_alias="KAFKA_SECURITY_PROTOCOL", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="PLAIN", validation_alias="KAFKA_SASL_MECHANISM", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    sasl_username: str | None = Field(default=None, validation_alias="KAFKA_SASL_USERNAME", description="the user's name")
    sasl_password: str | None = Field(default=None, validation_alias="KAFKA_SASL_PASSWORD", description="the user's password", repr=False)
    ssl_cafile: str | None = Field(
        default=None, validation_alias="KAFKA_SSL_CAFILE", description="the path of a PEM file of trusted authorities"
    )

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client of this cluster. Raises SettingsError when the authority file cannot be read."""
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap_servers, "security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=self.ssl_cafile)
            except OSError as error:
                raise SettingsError(
                    f"KAFKA_SSL_CAFILE cannot be read: {error}", mend="set it to a PEM file of trusted authorities"
                ) from error
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return options


class RedisSettings(Settings):
    """How to reach Redis or Valkey."""

    url: str = Field(
        validation_alias="REDIS_URL",
        pattern=r"^((redis|rediss)(\+cluster)?|unix)://",
        description="redis://[user:password@]host:port/db (rediss:// for TLS, unix:///path for a socket, "
        "redis+cluster://host:port,host:port for a cluster)",
    )


class OfflineSettings(Settings):
    """Where the offline store lives."""

    root: str = Field(
        validation_alias="TIDEMILL_OFFLINE", min_length=1, description="a folder, or an object-store URL such as s3://bucket/prefix"
    )


class HttpSettings(Settings):
    """Where a service listens. Port 0: any free port."""

    host: str = Field(default="127.0.0.1", validation_alias="TIDEMILL_HOST", description="an address to listen on; 0.0.0.0 for all")
    port: int = Field(
        default=8000, validation_alias="TIDEMILL_PORT", ge=0, le=65535, description="a port number from 0 (any free) to 65535"
    )


class ProjectSettings(Settings):
    """Which project a service runs."""

    project: str = Field(
        validation_alias="TIDEMILL_PROJECT", min_length=1, description="the folder, file or module that holds the project's declarations"
    )


class WatchdogSettings(Settings):
    """When a process counts as stuck."""

    patience_seconds: int = Field(
        120,
        validation_alias="TIDEMILL_PATIENCE_SECONDS",
        ge=2,
        description="a number of seconds, 2 or more: a process one of whose workers gives no sign of life for so long ends itself to be restarted",
    )


class PrioritySettings(Settings):
    """How much a process lets others go first on the machine that they share."""

    nice: int = Field(
        0,
        validation_alias="TIDEMILL_NICE",
        ge=0,
        le=19,
        description="a number from 0 to 19 that the process adds to its niceness once it has read its code and its project",
    )


class EngineSettings(Settings):
    """How the workers of models are treated that are served by their own pipelines."""

    seconds: float = Field(
        2.0,
        validation_alias="TIDEMILL_ENGINE_SECONDS",
        gt=0,
        description="a number of seconds: a pipeline that does not answer a row in that time is ended and started again",
    )
    memory_mb: int = Field(
        4096,
        validation_alias="TIDEMILL_ENGINE_MEMORY_MB",
        ge=512,
        description="a number of megabytes, 512 or more, that the process of a pipeline may map",
    )


@dataclass(frozen=True, kw_only=True)
class SettingsGroup:
    """Base of groups: every field is a class of settings."""

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises one SettingsError that names every missing or wrong variable of all classes, each with its mend."""
        kinds, loaded, errors = get_type_hints(cls), dict[str, Any](), list[SettingsError]()
        for each in dataclasses.fields(cls):
            try:
                loaded[each.name] = kinds[each.name].load()
            except SettingsError as error:
                errors.append(error)
        if errors:
            raise SettingsError(
                " and ".join(error.message for error in errors), mend=" and ".join(error.mend for error in errors if error.mend)
            )
        return cls(**loaded)

    def masked(self) -> dict[str, Any]:
        """Variable name -> value, safe to log: see `Settings.masked`."""
        return {variable: value for each in dataclasses.fields(self) for variable, value in getattr(self, each.name).masked().items()}


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(SettingsGroup):
    """What every service needs; each service adds the settings of its dependencies."""

    project: ProjectSettings
    http: HttpSettings
    watchdog: WatchdogSettings = dataclasses.field(default_factory=WatchdogSettings.load)
    priority: PrioritySettings = dataclasses.field(default_factory=PrioritySettings.load)
