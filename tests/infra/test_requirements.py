"""The libraries that an image installs in a layer of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.infra.extras import declared
from tests.infra.files import IMAGES, ROOT, dockerfile


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_the_libraries_of_its_extra(name: str) -> None:
    """The program prints what the extra needs with all extras in it, and what builds the project; nothing of the project itself."""
    command = [sys.executable, "infra/docker/requirements.py", name]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {line.partition(";")[0].strip().split(">")[0].split("<")[0].split("=")[0].partition("[")[0] for line in lines}
    assert names == {*declared(name), "hatchling"}
    assert not any(line.startswith("tidemill") for line in lines)


def test_code_comes_after_the_libraries() -> None:
    """A change of code leaves the layer of the libraries as it is."""
    steps = dockerfile().splitlines()
    (libraries,) = [number for number, line in enumerate(steps) if "-r requirements.txt" in line]
    (code,) = [number for number, line in enumerate(steps) if line.startswith("COPY shared/")]
    assert libraries < code
    assert not any("shared" in line or "services" in line for line in steps[:libraries])
