"""The store that readers are tested on."""

from tests.serving.conftest import store  # noqa: F401 - a fixture of the tests here
