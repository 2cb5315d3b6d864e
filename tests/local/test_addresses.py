"""Finding the running stack, and the table of services."""

import http.server
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.local import services
from tidemill.local.addresses import Addresses, find, home_folder
from tidemill.local.services import SERVICES, UnknownLocalService, choose

ADDRESSES = Addresses(
    "localhost:9092", "redis://:secret@localhost", "/data", None, {"serving": "http://localhost:1"}, {"serving": 5}, 7, "http://x"
)


def test_home_is_the_given_folder_else_the_variable_else_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over TIDEMILL_HOME, which wins over .tidemill; the answer is absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEMILL_HOME", raising=False)
    assert home_folder() == tmp_path / ".tidemill"
    monkeypatch.setenv("TIDEMILL_HOME", "elsewhere")
    assert home_folder() == tmp_path / "elsewhere"
    assert home_folder(tmp_path / "given") == tmp_path / "given"


def test_addresses_of_a_dead_stack_are_not_found(home: Path) -> None:
    """A file that a killed stack left is not mistaken for a running one; it is readable by its owner alone."""
    assert find(home) is None
    ADDRESSES.write(home)
    assert stat.S_IMODE((home / "stack.json").stat().st_mode) == 0o600
    (home / "run" / "supervisor.pid").write_text(str(os.getpid()))
    assert find(home) is None


def test_every_service_is_a_module_of_its_name() -> None:
    """Folder, module and service share one name, and needs are servers the stack knows."""
    assert [service.module for service in SERVICES] == [f"tidemill_{service.name}" for service in SERVICES]
    assert {need for service in SERVICES for need in service.needs} <= {"kafka", "valkey"}
    assert len({service.name for service in SERVICES}) == len(SERVICES)


def test_choose_keeps_the_order_of_the_table_and_refuses_strangers() -> None:
    """No name means all services; an unknown one is answered with those there are."""
    assert choose([]) == SERVICES
    assert [service.name for service in choose(["serving", "features"])] == ["features", "serving"]
    with pytest.raises(UnknownLocalService, match=r"unknown service 'servng'.*serving"):
        choose(["servng"])


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers 200 below /good and 503 below /bad."""

    def do_GET(self) -> None:
        """Answer by the path."""
        good = self.path == "/good/health/ready"
        self.send_response(200 if good else 503)
        self.end_headers()
        self.wfile.write(b"" if good else b"kafka: connection refused")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Return the address of a real HTTP server."""
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_readiness_says_why_not(server: str) -> None:
    """A ready service has no reason; one that is not tells its own; one that is absent the connection's."""
    assert services.not_ready(f"{server}/good") is None
    assert "503: kafka: connection refused" in str(services.not_ready(f"{server}/bad"))
    assert "refused" in str(services.not_ready("http://127.0.0.1:1"))
