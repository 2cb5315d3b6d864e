"""The world and the online store that the proof is tested on."""

from tests.operations.conftest import rig  # noqa: F401 - a fixture of the tests here
from tests.proof.conftest import folder, online, world  # noqa: F401 - fixtures of the tests here
