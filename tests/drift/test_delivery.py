"""Alerts are delivered to real servers of HTTP and SMTP: signed, summarised, chosen, and after these were away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from tests.beside import listening
from tests.demo_state import demo
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import KafkaUnavailable, SettingsError
from tidemill.kafka.client import started_consumer, started_producer
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.records import AlertRecord, NoteRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert
from tidemill.streams.notes import append_note
from tidemill.streams.topics import alerts_topic, notes_topic, topic_specs
from tidemill_drift.delivery import AlertDelivery
from tidemill_drift.settings import DeliverySettings
from tidemill_drift.sinks import Mail, NotDelivered, Notice, Sink, SlackWebhook, Webhook, sinks_of

ALERT = AlertRecord("a", "m", "1", "feature_drift", "x", "opened", 0, 10, "z", 1.0, 1.0, 0.3, 300, "m: x has moved", source="drift")
ALL = frozenset[str]()


def alerts(*ids: str) -> list[AlertRecord]:
    """Alerts with these ids."""
    return [msgspec.structs.replace(ALERT, id=id) for id in ids]


@dataclass
class Got:
    """What a server got: of HTTP headers and body, of SMTP the lines of a message; `status`: what it answers."""

    status: int = 200
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        if self.status == 200:
            self.messages.append((headers, body))
        writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session of a plain server."""
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).upper():
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                self.messages.append(({}, await reader.readuntil(b"\r\n.\r\n")))
            writer.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")
            await writer.drain()
        writer.close()

    @property
    def told(self) -> list[list[str]]:
        """The ids of the alerts of each message of a webhook."""
        return [[alert["id"] for alert in msgspec.json.decode(body)["alerts"]] for _, body in self.messages]


async def test_a_webhook_gets_signed_json() -> None:
    """Whoever knows the secret can tell that it is ours and whole; the id is the same when it comes again."""
    got = Got()
    async with listening(got.http) as port:
        for _ in range(2):
            await Webhook("webhook", ALL, f"http://127.0.0.1:{port}/x", "secret").send(Notice.of("p", [ALERT]))
        await Webhook("webhook", ALL, f"http://127.0.0.1:{port}/x").send(Notice.of("p", alerts("b")))
    (headers, body), (again, _), (unsigned, _) = got.messages
    assert headers["x-tidemill-signature"] == "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    assert headers["x-tidemill-id"] == again["x-tidemill-id"] != unsigned["x-tidemill-id"]
    assert "x-tidemill-signature" not in unsigned
    decoded = msgspec.json.decode(body, type=Notice)
    assert (decoded.project, decoded.count, decoded.alerts) == ("p", 1, [ALERT])


async def test_slack_and_mail_get_text() -> None:
    """The same words; a mail has the first line as its subject and an id of its own."""
    got, mails, notice = Got(), Got(), Notice.of("p", alerts("a", "b"))
    async with listening(got.http) as port, listening(mails.smtp) as smtp:
        await SlackWebhook("slack", ALL, f"http://127.0.0.1:{port}/x").send(notice)
        await Mail("mail", ALL, f"smtp://127.0.0.1:{smtp}", "us@here", ("you@there",)).send(notice)
    assert msgspec.json.decode(got.messages[0][1]) == {"text": notice.text}
    ((_, mail),) = mails.messages
    for line in (
        b"Subject: 2 alerts of p",
        b"To: you@there",
        f"Message-ID: <{notice.id}@p.tidemill>".encode(),
        b"Date: ",
        b"opened: m: x has moved [b]",
    ):
        assert line in mail


def test_a_storm_is_one_message() -> None:
    """It says how many there are and names the first ones."""
    notice = Notice.of("p", alerts(*map(str, range(250))))
    assert (notice.count, len(notice.alerts)) == (250, 100)
    assert notice.text.splitlines()[0] == "250 alerts of p"
    assert notice.text.splitlines()[-1] == "and 245 more: tidemill alerts"


async def test_a_sink_that_refuses_says_why() -> None:
    """Neither a bad answer nor a closed port is a delivery."""
    got = Got(status=500)
    async with listening(got.http) as port:
        with pytest.raises(NotDelivered, match="webhook: answers 500"):
            await Webhook("webhook", ALL, f"http://127.0.0.1:{port}").send(Notice.of("p", [ALERT]))
    for sink in (SlackWebhook("slack", ALL, f"http://127.0.0.1:{port}"), Mail("mail", ALL, f"smtp://127.0.0.1:{port}", "a@b", ("c@d",))):
        with pytest.raises(NotDelivered, match=sink.name):
            await sink.send(Notice.of("p", [ALERT]))


def test_sinks_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None by default; each gets what it is for, and no address or secret is shown."""
    assert sinks_of(DeliverySettings.load()) == []
    for name, value in {
        "WEBHOOK": "http://h/secret", "WEBHOOK_ONLY": "performance, other", "SLACK": "https://s/secret", "SMTP": "smtp://u:secret@h", "MAIL_TO": "a@b,c@d",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TIDEMILL_ALERTS_{name}", value)
    settings = DeliverySettings.load()
    assert "secret" not in str(settings.masked())
    webhook, slack, mail = sinks_of(settings)
    assert [sink.wants(ALERT) for sink in (webhook, slack, mail)] == [False, True, True]
    assert webhook.wants(msgspec.structs.replace(ALERT, kind="performance"))
    assert webhook.wants(msgspec.structs.replace(ALERT, model="other"))
    assert isinstance(mail, Mail)
    assert mail.to == ("a@b", "c@d")
    monkeypatch.setenv("TIDEMILL_ALERTS_MAIL_TO", " ")
    with pytest.raises(SettingsError, match="names nobody"):
        DeliverySettings.load()


class World:
    """A project's topics, and deliveries of its alerts."""

    def __init__(self, kafka: str, name: str) -> None:
        self.project, self.settings = replace(demo(), name=name), KafkaSettings(bootstrap_servers=kafka)

    async def begin(self) -> None:
        """Make the topics."""
        specs = topic_specs(self.project)
        names = alerts_topic(self.project.name), notes_topic(self.project.name)
        await ensure_topics(self.settings, {topic: specs[topic] for topic in names})

    async def tell(self, *told: AlertRecord) -> None:
        """Write alerts."""
        async with started_producer(self.settings) as made:
            for alert in told:
                await append_alert(made, self.project.name, alert)

    @asynccontextmanager
    async def delivering(self, sink: Sink) -> AsyncIterator[None]:
        """Deliver to a sink meanwhile."""
        task = asyncio.create_task(AlertDelivery(self.project, self.settings, sink).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to hold."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.1)


@pytest.mark.integration
async def test_nothing_is_lost_while_a_sink_is_away(kafka: str, topic_prefix: str) -> None:
    """An old alert is nobody's news; what comes while the sink refuses, or nobody delivers, arrives as one message, but for what is muted."""
    world, got = World(kafka, topic_prefix), Got()
    await world.begin()
    await world.tell(*alerts("old"))
    async with listening(got.http) as port:
        sink = Webhook("webhook", ALL, f"http://127.0.0.1:{port}")
        delivery = AlertDelivery(world.project, world.settings, sink)
        async with world.delivering(sink):
            await until_kept(delivery)
            await world.tell(*alerts("a"))
            await until(lambda: got.told == [["a"]])
            got.status = 503
            await world.tell(*alerts("b"))
            await asyncio.sleep(1)
            await world.tell(*alerts("c"))
        await append_note(world.settings, topic_prefix, NoteRecord("mute", 0, model="m", subject="quiet"))
        await world.tell(
            msgspec.structs.replace(ALERT, id="muted", subject="quiet"), msgspec.structs.replace(ALERT, id="d", state="closed")
        )
        got.status = 200
        async with world.delivering(sink):
            await until(lambda: len(got.told) > 1)
    assert got.told == [["a"], ["b", "c", "d"]]


@pytest.mark.integration
async def test_a_quiet_sink_renews_its_position(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka forgets a position that is a week old: a service that restarts after a quiet week would begin with the next alert, and skip what came meanwhile."""
    monkeypatch.setattr("tidemill_drift.delivery.RENEW_SECONDS", 0.0)
    world = World(kafka, topic_prefix)
    await world.begin()
    await world.tell(*alerts("old"))
    delivery = AlertDelivery(world.project, world.settings, Webhook("webhook", ALL, "http://127.0.0.1:9"))
    async with world.delivering(delivery._sink):
        await until_kept(delivery)
        async with started_consumer(world.settings, group=delivery._group) as other:
            other.assign([delivery._at])
            await other.commit({delivery._at: 0})
        await until_kept(delivery)


async def until_kept(delivery: AlertDelivery) -> None:
    """Wait until a sink has its position, after the one alert that is old."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(KafkaUnavailable):  # a new broker has no coordinator of groups yet
                if (await committed(delivery._kafka, delivery._group)).get(delivery._at, 0) >= 1:
                    return
            await asyncio.sleep(0.2)
