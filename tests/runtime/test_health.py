"""Health: when a process says it is ready, and what it says when it is not."""

import threading
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from tidemill.runtime.asgi import OpsApp, Receive, Scope, Send
from tidemill.runtime.health import HealthBoard


async def get(board: HealthBoard, path: str, method: str = "GET") -> httpx.Response:
    """Ask the ops application as a client would."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=OpsApp(board)), base_url="http://ops") as client:
        return await client.request(method, path)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board's clock stands still, so that no stall of the machine shows in what it says."""
    monkeypatch.setattr("tidemill.runtime.health.time.monotonic", lambda: 1000.0)


@pytest.mark.usefixtures("still")
async def test_unreported_checks_are_missing() -> None:
    """A process is not ready before every check was reported up."""
    board = HealthBoard("kafka", "redis")
    answer = await get(board, "/health/ready")
    assert answer.status_code == 503
    unchecked = {"ok": False, "reason": "not checked yet", "for_seconds": 0.0}
    assert answer.json() == {"status": "unready", "checks": {"kafka": unchecked, "redis": unchecked}}


@pytest.mark.usefixtures("still")
async def test_ready_names_what_is_missing_until_nothing_is() -> None:
    """Only the failing check has a reason; once it is back the answer is 200."""
    board = HealthBoard("kafka", "redis")
    board.up("kafka")
    board.down("redis", "connection refused")
    answer = await get(board, "/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "kafka": {"ok": True},
        "redis": {"ok": False, "reason": "connection refused", "for_seconds": 0.0},
    }
    board.up("redis")
    answer = await get(board, "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")


async def test_a_failing_check_says_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when it began to fail, whatever its reasons since; anew when it had held in between."""
    now = 1000.0
    monkeypatch.setattr("tidemill.runtime.health.time.monotonic", lambda: now)
    board = HealthBoard("redis")

    def seconds() -> float:
        return float(msgspec.json.decode(board.ready_answer()[1])["checks"]["redis"].get("for_seconds", -1))

    for at, reason, lasted in (
        (1004, "gone", 4),
        (1009, "still gone", 9),
        (1010, None, -1),
        (1020, "gone again", 0),
        (1021.25, "gone again", 1.2),
    ):
        now = float(at)
        board.report("redis", reason)
        assert seconds() == lasted


async def test_live_does_not_depend_on_others() -> None:
    """A process whose dependencies are away must not be restarted for that."""
    board = HealthBoard("kafka")
    board.down("kafka", "away")
    answer = await get(board, "/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


@pytest.mark.usefixtures("still")
async def test_a_dead_process_is_neither_live_nor_ready() -> None:
    """What cannot recover says so on both paths, with the reason."""
    board = HealthBoard("kafka")
    board.up("kafka")
    board.dead("no progress for 60 s")
    live, ready = await get(board, "/health/live"), await get(board, "/health/ready")
    assert (live.status_code, live.json()) == (503, {"status": "dead", "reason": "no progress for 60 s"})
    assert ready.status_code == 503
    assert ready.json()["checks"]["process"] == {"ok": False, "reason": "no progress for 60 s", "for_seconds": 0.0}
    assert not board.alive


async def test_metrics_are_served() -> None:
    """The body is Prometheus text and contains our gauge."""
    board = HealthBoard("metrics-test")
    answer = await get(board, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'tidemill_dependency_up{dependency="metrics-test"} 0.0' in answer.text


async def test_the_gauge_follows_the_board() -> None:
    """Every change of a check is in the gauge."""
    board = HealthBoard("gauge-test")
    seen = []
    for reason in (None, "gone", "still gone", None):
        board.report("gauge-test", reason)
        seen.append(REGISTRY.get_sample_value("tidemill_dependency_up", {"dependency": "gauge-test"}))
    assert seen == [1, 0, 0, 1]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)])
async def test_other_requests_are_refused_with_the_mend(method: str, path: str, status: int) -> None:
    """Errors have the one shape of all errors."""
    answer = await get(HealthBoard(), path, method)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "mend"}


async def test_only_http_is_served() -> None:
    """A websocket or lifespan scope is an error a server understands."""

    async def receive() -> dict[str, Any]:
        return {}

    async def send(_message: Any) -> None: ...

    ask: Receive = receive
    tell: Send = send
    scope: Scope = {"type": "lifespan"}
    with pytest.raises(RuntimeError, match="lifespan"):
        await OpsApp(HealthBoard())(scope, ask, tell)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from(["x", "y"])), max_size=20))
def test_the_board_is_the_last_report_of_each_check(reports: list[tuple[str, str | None]]) -> None:
    """Whatever is reported in whatever order, ready is exactly: the last report of every check was none."""
    board, last = HealthBoard("a", "b", "c"), dict.fromkeys("abc", "not checked yet") | dict[str, str | None]()
    for check, reason in reports:
        board.report(check, reason)
        last[check] = reason
    missing = {check: reason for check, reason in last.items() if reason is not None}
    assert board.missing == missing
    assert board.ready == (not missing)
    status, body = board.ready_answer()
    assert status == (503 if missing else 200)
    assert {name for name, check in msgspec.json.decode(body)["checks"].items() if not check["ok"]} == missing.keys()


def test_any_thread_may_report() -> None:
    """Threads that report while others read leave a whole board behind."""
    board = HealthBoard()

    def work(name: str) -> None:
        for number in range(200):
            board.require(f"{name}-{number}")
            board.ready_answer()
            board.up(f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.ready
    assert len(msgspec.json.decode(board.ready_answer()[1])["checks"]) == 800
