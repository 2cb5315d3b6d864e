"""The project without servers: `pytest`."""

from pathlib import Path

import pytest
from data import events, pictures
from project import SIDE

from tidemill.errors import BadRequest
from tidemill.testing import World

MONDAY_MS = 1_767_571_200_000  # 5 January 2026


@pytest.fixture(scope="module")
def world() -> World:
    """The project in memory, trained on the first pictures."""
    made = World.load(Path(__file__).parent)
    for known_ms, name, data in events(MONDAY_MS, most=700):
        made.publish(name, data, at=known_ms)
    assert made.train("digit").metrics["accuracy"] > 0.85
    return made


def test_most_new_pictures_are_read(world: World) -> None:
    """Pictures that it was not trained on; the probabilities of all digits are told."""
    new = pictures()[-100:]
    answers = [world.predict("digit", {"pixels": pixels}) for pixels, _ in new]
    assert sum(answer.chosen == digit for answer, (_, digit) in zip(answers, new, strict=True)) > 85
    assert sum(answers[0].probabilities.values()) == pytest.approx(1)


def test_a_picture_of_another_size_is_refused(world: World) -> None:
    """The error says which size is meant."""
    with pytest.raises(BadRequest) as refused:
        world.predict("digit", {"pixels": [[0.0] * (SIDE + 1)] * (SIDE + 1)})
    assert f"[{SIDE}, {SIDE}]" in refused.value.mend
