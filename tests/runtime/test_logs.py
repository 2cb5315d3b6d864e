"""Logs: one form for every line."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tidemill.local.said import in_words
from tidemill.runtime import logs


class Terminal(io.StringIO):
    """Text that says it goes to a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Configure logging onto a text stream, and put everything back after."""
    root, level, handlers = logging.getLogger(), logging.getLogger().level, logging.getLogger().handlers[:]
    stream = io.StringIO()
    logs.configure("tester", stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    """Parse every line as JSON."""
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object(out: io.StringIO) -> None:
    """A line carries time, level, service, message, module and its own fields, time first."""
    logs.get_logger("a.module").info("batch folded", events=500)
    (line,) = lines(out)
    assert {**line, "time": None} == {
        "time": None, "level": "info", "service": "tester", "message": "batch folded", "module": "a.module", "events": 500,
    }  # fmt: skip
    assert next(iter(line)) == "time"
    assert line["time"].endswith("Z")


def test_library_lines_take_the_same_form(out: io.StringIO) -> None:
    """The standard library's records pass through the same chain, arguments filled in."""
    logging.getLogger("some.library").warning("lost %d of %s", 3, "four")
    (line,) = lines(out)
    assert (line["level"], line["message"], line["module"]) == ("warning", "lost 3 of four", "some.library")


def test_ids_in_context_are_on_every_line_inside(out: io.StringIO) -> None:
    """Context is kept per task: two tasks never see each other's ids, and nothing stays after."""

    async def work(name: str) -> None:
        with logs.bound(request_id=name):
            await asyncio.sleep(0)
            logs.get_logger("x").info("inside", expected=name)
            logging.getLogger("lib").warning("inside %s", name)

    async def main() -> None:
        await asyncio.gather(*(work(str(number)) for number in range(5)))

    asyncio.run(main())
    logs.get_logger("x").info("outside")
    *inside, outside = lines(out)
    assert {line["request_id"] for line in inside} == {"0", "1", "2", "3", "4"}
    assert all(line["expected"] == line["request_id"] for line in inside if "expected" in line)
    assert "request_id" not in outside


def test_exceptions_are_data(out: io.StringIO) -> None:
    """A traceback is a field of its line, for our logger and for the standard one."""
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        logs.get_logger("x").exception("ours")
        logging.getLogger("lib").exception("theirs")
    ours, theirs = lines(out)
    assert ours["exception"][0]["exc_type"] == theirs["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_an_exception_is_told_without_the_values_of_variables(out: io.StringIO) -> None:
    """One of them might be a password. In words it is one sentence, with the place in the code."""
    inside = "very" + " secret"
    try:
        int("x" * 5_000 + str(len(inside)))
    except ValueError:
        logs.get_logger("x").exception("a worker ends", view="rides")
    assert "very secret" not in out.getvalue()
    told = in_words(out.getvalue())
    assert told.startswith("error: a worker ends view=rides ValueError: ")
    assert told.endswith(", test_an_exception_is_told_without_the_values_of_variables)")
    assert len(told) < 700


def test_a_value_json_does_not_know_is_shown_by_its_repr(out: io.StringIO) -> None:
    """A strange value never costs the line."""
    logs.get_logger("x").info("strange", value=object, blob={1: 2})
    (line,) = lines(out)
    assert line["value"] == "<class 'object'>"


def test_levels_below_are_left_out(out: io.StringIO) -> None:
    """Debug lines do not appear by default; nor what quiet libraries say below a warning."""
    logs.get_logger("x").debug("no")
    logging.getLogger("x").debug("no")
    logging.getLogger("aiokafka.consumer").info("no")
    logging.getLogger("aiokafka.consumer").warning("yes")
    assert [line["message"] for line in lines(out)] == ["yes"]


def test_a_library_that_repeats_itself_is_heard_once(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one statement's lines the first is kept; the next kept one says how many were left out. Other statements are not affected."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    library = logging.getLogger("noisy")
    for moment, expected in ((0.0, 1), (1.0, 1), (9.9, 1), (10.0, 2), (10.1, 2)):
        now = 1000.0 + moment
        library.warning("cannot connect to %s", moment)
        assert len(lines(out)) == expected
    library.warning("another statement")
    first, second, other = lines(out)
    assert "left_out" not in first
    assert second["left_out"] == 2
    assert (other["message"], "left_out" in other) == ("another statement", False)


def test_configuring_twice_does_not_double_lines(out: io.StringIO) -> None:
    """The second configuration replaces the first."""
    again = io.StringIO()
    logs.configure("again", stream=again)
    logging.getLogger("lib").warning("once")
    logs.get_logger("x").info("once")
    assert lines(out) == []
    assert [line["service"] for line in lines(again)] == ["again", "again"]


def test_a_logger_made_before_configure_follows_it(out: io.StringIO) -> None:
    """Modules make their loggers at import, long before a service configures."""
    early = logs.get_logger("early")
    early.info("one")
    later = io.StringIO()
    logs.configure("later", stream=later)
    early.info("two")
    assert [line["message"] for line in lines(out)] == ["one"]
    assert [line["message"] for line in lines(later)] == ["two"]


def test_a_terminal_gets_text(out: io.StringIO) -> None:
    """People read plain text instead of JSON."""
    terminal = Terminal()
    logs.configure("tester", stream=terminal)
    logs.get_logger("x").info("hello", answer=42)
    assert "hello" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())


def test_redirected_stdout_does_not_matter(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines go to the stream chosen at the start even when a framework replaces sys.stdout and sys.stderr."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", io.StringIO())
    logs.get_logger("x").info("still here")
    assert [line["message"] for line in lines(out)] == ["still here"]
