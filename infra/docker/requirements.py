"""Prints the libraries of one extra of pyproject.toml, those of the extras within it included: python requirements.py ingestion"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extra: str) -> list[str]:
    """What the project needs with this extra, and to be built."""
    own, extras = f"{project['name']}[", project["optional-dependencies"]
    found: list[str] = list(project["dependencies"])
    waiting = [extra]
    while waiting:
        for line in extras[waiting.pop()]:
            if line.startswith(own):
                waiting += line.removeprefix(own).partition("]")[0].split(",")
            else:
                found.append(line)
    return found


if __name__ == "__main__":
    parsed = tomllib.loads(Path("pyproject.toml").read_text())
    print("\n".join([*parsed["build-system"]["requires"], *requirements(parsed["project"], sys.argv[1])]))
