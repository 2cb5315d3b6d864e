"""Where alerts are delivered: a webhook, a webhook as Slack's, e-mail. Each sends one message, or raises NotDelivered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import smtplib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import localtime
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from tidemill.errors import TidemillError
from tidemill.records import AlertRecord
from tidemill_drift.settings import DeliverySettings

SEND_SECONDS = 10.0
MOST_TOLD, MOST_ALERTS = 5, 100
_FIRST_BAD = 300


class NotDelivered(TidemillError):
    """A sink did not take a message; it is sent again."""


class Notice(msgspec.Struct, frozen=True):
    """One message: about one alert, or a summary of many. `id` follows from the alerts, so who gets it twice can tell."""

    id: str
    project: str
    count: int
    text: str
    alerts: list[AlertRecord]

    @classmethod
    def of(cls, project: str, alerts: Sequence[AlertRecord]) -> Notice:
        """The message about some alerts: the first ones in words, at most a hundred as records."""
        identity = hashlib.sha256("|".join(alert.id for alert in alerts).encode()).hexdigest()[:16]
        lines = [f"{alert.state}: {alert.message} [{alert.id}]" for alert in alerts[:MOST_TOLD]]
        if len(alerts) > 1:
            lines.insert(0, f"{len(alerts)} alerts of {project}")
        if len(alerts) > MOST_TOLD:
            lines.append(f"and {len(alerts) - MOST_TOLD} more: tidemill alerts")
        return cls(identity, project, len(alerts), "\n".join(lines), list(alerts[:MOST_ALERTS]))


@dataclass(frozen=True)
class Sink(ABC):
    """`name`: of its position on the topic; `only`: kinds, models or sources whose alerts it gets (empty: all)."""

    name: str
    only: frozenset[str]

    def wants(self, alert: AlertRecord) -> bool:
        """Whether it gets an alert."""
        return not self.only or bool(self.only & {alert.kind, alert.model, alert.view, str(alert.source)})

    @abstractmethod
    async def send(self, notice: Notice) -> None:
        """Delivers a message. Raises NotDelivered."""


@dataclass(frozen=True)
class Webhook(Sink):
    """The message as JSON. With a secret, `X-Tidemill-Signature` is sha256=HMAC of the body."""

    url: str
    secret: str | None = None

    async def send(self, notice: Notice) -> None:
        """See `Sink.send`."""
        body = msgspec.json.encode(notice)
        headers = {"content-type": "application/json", "x-tidemill-id": notice.id}
        if self.secret:
            headers["x-tidemill-signature"] = "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        await _post(self.name, self.url, body, headers)


@dataclass(frozen=True)
class SlackWebhook(Sink):
    """The message as text, for Slack, Mattermost and others that take the same."""

    url: str

    async def send(self, notice: Notice) -> None:
        """See `Sink.send`."""
        await _post(self.name, self.url, msgspec.json.encode({"text": notice.text}), {"content-type": "application/json"})


@dataclass(frozen=True)
class Mail(Sink):
    """The message by SMTP, at smtp://user:password@host:port (smtps: with TLS from the first byte; else STARTTLS where the server has it)."""

    url: str
    sender: str
    to: tuple[str, ...]

    async def send(self, notice: Notice) -> None:
        """See `Sink.send`."""
        try:
            await asyncio.to_thread(self._send, notice)
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(f"{self.name}: {type(error).__name__}: {error}"[:300], mend="see TIDEMILL_ALERTS_SMTP") from error

    def _send(self, notice: Notice) -> None:
        at = urlsplit(self.url)
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Message-ID"] = self.sender, ", ".join(self.to), f"<{notice.id}@{notice.project}.tidemill>"
        mail["Date"] = localtime()
        mail["Subject"] = notice.text.partition("\n")[0][:200]
        mail.set_content(notice.text)
        secure = at.scheme == "smtps"
        kind = smtplib.SMTP_SSL if secure else smtplib.SMTP
        with kind(at.hostname or "localhost", at.port or (465 if secure else 25), timeout=SEND_SECONDS) as server:
            if not secure and server.has_extn("starttls"):
                server.starttls()
            if at.username:
                server.login(unquote(at.username), unquote(at.password or ""))
            server.send_message(mail)


async def _post(name: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    try:
        async with httpx.AsyncClient(timeout=SEND_SECONDS) as client:
            answer = await client.post(url, content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotDelivered(f"{name}: {type(error).__name__}: {error}"[:300], mend="see its address, and whether it runs") from error
    if answer.status_code >= _FIRST_BAD:
        raise NotDelivered(f"{name}: answers {answer.status_code}: {answer.text[:200]}", mend="see its log")


def sinks_of(settings: DeliverySettings) -> list[Sink]:
    """The sinks that the environment names."""
    found = list[Sink]()
    if settings.webhook:
        found.append(Webhook("webhook", settings.words(settings.webhook_only), settings.webhook, settings.secret))
    if settings.slack:
        found.append(SlackWebhook("slack", settings.words(settings.slack_only), settings.slack))
    if settings.smtp:
        found.append(
            Mail(
                "mail",
                settings.words(settings.mail_only),
                settings.smtp,
                settings.mail_from,
                tuple(sorted(settings.words(settings.mail_to))),
            )
        )
    return found
