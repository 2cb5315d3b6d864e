"""Lines of a page as a shell runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


def printed(line: str, folder: Path, environment: Mapping[str, str], patience_seconds: float) -> str:
    """What a line prints in a folder. Fails, with all that it said, when it does not end well."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=patience_seconds, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout
