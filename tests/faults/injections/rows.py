"""What the numbers of an injection mean: the rows of the fault matrix, and the invariants that a fault is meant to break."""

from __future__ import annotations

ROWS = {
    "1": "a process is killed at any moment",
    "2": "a process is killed at a named point",
    "3": "a process sleeps about as long as its session, and goes on",
    "4": "an event loop is blocked for longer than the session",
    "5": "workers join and leave again and again",
    "6": "a process comes back before its group has given it up, and after",
    "7": "two workers own the same partitions",
    "8": "Valkey is killed",
    "9": "Valkey loses the end of its log",
    "11": "Valkey is emptied",
    "13": "Valkey's disk is full",
    "14": "Valkey's memory is full",
    "15": "Valkey does not answer for some seconds",
    "16": "Valkey fails over to a replica that lags",
    "17": "a reply is lost after the act",
    "18": "a link is cut, half-open or slow",
    "19": "Kafka is restarted, killed, paused or away",
    "20": "Kafka is away when a process starts",
    "23": "Kafka's disk is full",
    "24": "fences are read too slowly while a worker joins",
    "24b": "Valkey is away while a worker joins",
    "25": "an unknown error is raised in a process",
    "26": "a process is slow, and work piles up",
    "31": "clocks go wrong",
    "32": "a writer of tables is killed while it writes or compacts",
    "33": "two writers of tables run at once",
    "34": "the newest commit of a table is torn",
    "35": "the disk of the tables is full",
    "36": "tables are compacted beside their writer",
    "37": "inference dies or answers late, and its client asks again",
    "38": "a damaged model is deployed",
    "40": "a command that changes a view is killed",
    "41": "a view is changed by two commands at once",
    "42": "a service is killed while it follows a changed view",
    "43": "another fault strikes while a view is changed",
}
"""What strikes a running system from which it recovers by itself."""

REFUSED = {
    "10": "a bit of Valkey's log is turned over",
    "12": "an entity has another one's value",
    "21": "a topic is cut or made anew",
    "22": "a log begins after a fence",
    "30": "a topic gets more partitions",
    "34": "a data file of a table is gone",
}
"""What ends in a deliberate refusal: `refusals.py`, each named as "Row ..." in the docstring of its function."""

INVARIANTS = {
    "I1": "a value in Redis is the fold of its topic up to the fence beside it",
    "I2": "after the last fault, every store reaches the end of its topics",
    "I3": "a fence goes back only when its store lost data",
    "I4": "a row of a table is there once, without a gap",
    "I5": "a prediction that a client received is in the log once, and computed again it is the same",
    "I6": "a process that makes no progress says so, or ends",
    "I7": "memory, files and threads are bounded",
    "I8": "a reader never sees a value newer than the fence it saw",
}
