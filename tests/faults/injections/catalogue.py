"""All injections from which the system recovers by itself."""

from __future__ import annotations

from tests.faults.injections import clocks, commands, kafka, links, models, offline, valkey, workers
from tests.faults.injections.failover import FAILED_OVER
from tests.faults.injections.hooked import SESSION_SECONDS
from tests.faults.injections.injection import Injection

STATEFUL = ("ingestion", "features", "offline", "predlog", "inference", "drift")
RARE = {"before_model", "after_model", "before_tell", "after_tell", "before_keep", "after_keep", "before_compact", "after_compact"}
"""Points that a process does not come by every few seconds: a strike there is often missed."""

WORKERS = (
    *(workers.killed(name) for name in (*STATEFUL, "serving")),
    *(workers.restarted(name) for name in ("ingestion", "features", "predlog")),
    *(workers.paused(name) for name in ("ingestion", "features", "offline", "predlog")),
    *(workers.away(name) for name in ("ingestion", "features")),
    *(strike for name in STATEFUL for strike in workers.all_points(name) if strike.name.rpartition(" ")[2] not in RARE),
    *(workers.killed_within(name, step) for name, step in (("offline", "write"), ("predlog", "write"), ("ingestion", "send"), ("inference", "send"))),
    workers.raising(),
    workers.raising("ingestion", "before_send"),
    workers.raising("offline", "after_write"),
    workers.blocked("features", "before_apply", 3.0 * SESSION_SECONDS),
    workers.blocked("ingestion", "before_send", 3.0 * SESSION_SECONDS),
    workers.slowed("features", "before_apply"),
    workers.slowed("ingestion", "before_send"),
    workers.join_storm(),
    workers.twins(),
)  # fmt: skip
SERVERS = (
    valkey.KILLED, valkey.PAUSED, valkey.EMPTIED, valkey.CUT, valkey.OUT_OF_MEMORY, valkey.BUSY, FAILED_OVER,
    valkey.full_disk("everysec"), valkey.full_disk("always"), valkey.away_while_joining(10), valkey.away_while_joining(60),
    kafka.RESTARTED, kafka.KILLED, kafka.PAUSED, kafka.DISK_FULL, kafka.away(10), kafka.away(70),
    *(kafka.away_at_start(name) for name in ("features", "ingestion", "offline")),
)  # fmt: skip
LINKS = (
    *(
        strike
        for server in links.SERVERS
        for strike in (
            links.cut(server),
            links.half_open(server),
            links.replies_lost(server),
            links.slow(server, "200 ms late", latency_seconds=0.2),
            links.slow(server, "1 kB/s", bytes_per_second=1000),
        )
    ),
    links.SLOW_FENCES,
)
OTHERS = (
    offline.TORN, offline.DOUBLED, offline.DISK_FULL, offline.MAINTAINED,
    clocks.BACK, clocks.AHEAD, clocks.STEP_BACK,
    models.DAMAGED, models.LATE,
)  # fmt: skip
CATALOGUE: tuple[Injection, ...] = (*WORKERS, *SERVERS, *LINKS, *OTHERS, *commands.COMMANDS)
