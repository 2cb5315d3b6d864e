"""What ended by itself is told, since the supervisor hides it by beginning anew."""

from __future__ import annotations

from pathlib import Path

from tidemill.local.ended import ended

ERROR = (
    '{"time":"t","level":"error","service":"audit","message":"service ends","module":"m","exception":[{"exc_type":"TypeError","exc_value":"no kernel",'
    '"frames":[{"filename":"a.py","lineno":1,"name":"run"},{"filename":"draw.py","lineno":43,"name":"draw"}]}]}'
)
BEGIN = '{"event": "process starts", "process": "supervisor", "pid": 7}'


def test_who_ended_how_often_and_why(tmp_path: Path) -> None:
    """Since the stack was started; what was stopped, or ended as it was expected to, is none."""
    assert ended(tmp_path) == []
    (tmp_path / "supervisor.log").write_text(
        "\n".join(
            [
                "2026-11-01 10:00:00,123 WARN exited: drift (exit status 1; not expected)",
                BEGIN,
                "2026-11-30 22:00:01,004 WARN exited: audit (exit status 1; not expected)",
                "2026-11-30 22:00:02,004 INFO success: audit entered RUNNING state, process has stayed up for > than 5 seconds (startsecs)",
                "2026-11-30 22:00:03,004 WARN stopped: inference (exit status 0)",
                "2026-11-30 23:00:01,004 WARN exited: predlog (terminated by SIGKILL; not expected)",
                "2026-11-30 23:03:32,969 WARN exited: audit (exit status 1; not expected)",
            ]
        )
    )
    (tmp_path / "audit.log").write_text(
        f'{{"level":"error","message":"a line without a trace"}}\n{ERROR}\n{{"level":"info","message":"on"}}\n'
    )
    assert [str(one) for one in ended(tmp_path)] == [
        "audit has ended 2 times, last at 2026-11-30 23:03:32 (exit status 1): service ends TypeError: no kernel (draw.py:43, draw); see: tidemill logs audit",
        "predlog has ended once, last at 2026-11-30 23:00:01 (terminated by SIGKILL); see: tidemill logs predlog",
    ]
