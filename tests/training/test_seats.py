"""As what a new version serves: what can be asked for, and what cannot be as things are."""

from __future__ import annotations

import argparse

import pytest

from tidemill.cli.models import RoleName, seat_arguments
from tidemill.errors import DeploymentRefused, TidemillError
from tidemill.records import DeploymentRecord, OtherVersion
from tidemill_training.seats import NewSeat, add_options, check_seat, seat_of

CHAMPION = DeploymentRecord("m", "v1", "", "", 0)
CROWDED = DeploymentRecord("m", "v1", "", "", 0, {}, [OtherVersion("v2", "challenger", "", "", 0.9)])


@pytest.mark.parametrize(
    ("given", "seat", "said"),
    [
        ([], NewSeat(), "deployed"),
        (["--no-deploy"], None, None),
        (["--as", "shadow"], NewSeat("shadow"), "deployed as a shadow"),
        (["--as", "challenger"], NewSeat("challenger", 0.05), "deployed as a challenger, 0.05 of the requests"),
        (["--as", "challenger", "--share", "0.5"], NewSeat("challenger", 0.5), "deployed as a challenger, 0.5 of the requests"),
    ],
)
def test_what_is_asked_for(given: list[str], seat: NewSeat | None, said: str | None) -> None:
    """A version is the champion if nothing else is said; only a challenger has a share."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    found = seat_of(parser.parse_args(given))
    assert found == seat
    assert (found.said if found else None) == said


@pytest.mark.parametrize(
    ("seat", "history", "told"),
    [
        (NewSeat("shadow"), [], "no version of it serves, so none can be a shadow beside it; leave out --as"),
        (NewSeat("challenger", 0.2), [CROWDED], r"the shares of the challengers would add up to 1\.1"),
        (NewSeat("challenger", 0.0), [CHAMPION], "a challenger's share is above 0 and at most 1, not 0"),
        (NewSeat("challenger", 1.5), [CHAMPION], "a challenger's share is above 0 and at most 1, not 1.5"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(seat: NewSeat, history: list[DeploymentRecord], told: str) -> None:
    """There is no champion yet, or not that much of the requests is left."""
    with pytest.raises(DeploymentRefused, match=told):
        check_seat("m", seat, history)


def test_what_can_be() -> None:
    """The first version as champion, another beside it, and one that is only stored."""
    for seat, history in ((NewSeat(), []), (None, []), (NewSeat("shadow"), [CROWDED]), (NewSeat("challenger", 0.05), [CHAMPION])):
        check_seat("m", seat, history)


def test_the_options_of_the_commands() -> None:
    """A share is written as people write it; what contradicts is told in a line."""
    assert seat_arguments(deploy=True, role=None, share=None) == []
    assert seat_arguments(deploy=False, role=None, share=None) == ["--no-deploy"]
    assert seat_arguments(deploy=True, role=RoleName.challenger, share="5%") == ["--as", "challenger", "--share", "0.05"]
    with pytest.raises(TidemillError, match="only a challenger has a share of the requests; add --as challenger"):
        seat_arguments(deploy=True, role=RoleName.shadow, share="5%")
    with pytest.raises(TidemillError, match="a version that is not deployed has no role"):
        seat_arguments(deploy=False, role=RoleName.shadow, share=None)
