"""The supervisor's configuration says exactly what was meant."""

import shlex
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supervisor.options import ServerOptions

from tidemill.local.supervisor import Program, child_command, write_config


def parsed(config: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """Read the file with supervisor's own reader: process -> its configuration."""
    monkeypatch.setattr(sys, "argv", ["supervisord"])
    options = ServerOptions()
    options.realize(["-n", "-c", str(config)])
    return {
        process.name: {**vars(process), "group": group.name} for group in options.process_group_configs for process in group.process_configs
    }


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(st.text(st.sampled_from("ab %;#'\"\\$=,:/é"), max_size=12), min_size=1, max_size=5))
def test_any_command_survives_the_file(home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Spaces, quotes, percent signs and comment characters of a command reach the process unchanged."""
    config = write_config(home, 9001, "secret", [Program("one", "services", ["/bin/echo", *arguments])])
    command = parsed(config, monkeypatch)["one"]["command"]
    assert shlex.split(str(command)) == child_command("one", "supervisor", ["/bin/echo", *arguments])


def test_files_and_folders_lie_in_the_data_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go to one file per process, servers run in a folder of their own, services where the stack was started."""
    programs = [
        Program("valkey", "servers", ["v"], folder="valkey"),
        Program("serving", "services", ["s"], environment={"TIDEMILL_PORT": "8001"}),
    ]
    found = parsed(write_config(home, 9001, "secret", programs), monkeypatch)
    assert (found["valkey"]["group"], found["serving"]["group"]) == ("servers", "services")
    assert (found["valkey"]["directory"], found["serving"]["directory"]) == (str(home / "valkey"), None)
    assert found["serving"]["stdout_logfile"] == str(home / "logs" / "serving.log")
    assert found["serving"]["environment"] == {"TIDEMILL_PORT": "8001"}
    assert found["serving"]["autorestart"]
    assert not found["serving"]["autostart"]


def test_the_password_is_for_the_owner_alone(home: Path) -> None:
    """Others on the machine cannot read the file that lets one control the stack."""
    config = write_config(home, 9001, "secret", [])
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
