"""Who answers a request, and which versions serve after any deployments, in any state of their files."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.errors import BadDeployment
from tidemill.models.roles import Lineup, Seat, Traffic, traffic_key
from tidemill.records import DeploymentRecord, OtherVersion, decoder, encode

OLD = b'{"model":"m","version":"v1","artifact":"models/m/v1","sha256":"00","deployed":5,"metrics":{"auc":0.5}}'
"""A deployment as it was written when a model had one version."""

KEYS = [b"key-%d" % i for i in range(6_000)]


def seats(**shares: float) -> list[Seat]:
    """Challengers with shares, and a champion with what they leave."""
    return [
        Seat("champion", "champion", max(0.0, 1 - math.fsum(shares.values()))),
        *(Seat(name, "challenger", share) for name, share in shares.items()),
    ]


SHARES = st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.floats(0.01, 0.33), max_size=3)


@given(SHARES)
@settings(max_examples=20, deadline=None)
def test_each_version_answers_its_share(shares: dict[str, float]) -> None:
    """Over six thousand keys each version's count lies within five standard deviations of its share."""
    lineup = seats(**shares)
    traffic = Traffic("m", lineup)
    counts = Counter(map(traffic.version, KEYS))
    for seat in lineup:
        spread = math.sqrt(len(KEYS) * seat.share * (1 - seat.share))
        assert abs(counts[seat.version] - len(KEYS) * seat.share) <= 5 * spread + 1


@given(SHARES, st.randoms(use_true_random=False), st.lists(st.binary(max_size=20), max_size=50))
def test_a_key_stays_with_its_version(shares: dict[str, float], random: object, keys: list[bytes]) -> None:
    """Neither the order in which versions are stated nor another Traffic of the same shares changes who answers."""
    lineup = seats(**shares)
    first = [Traffic("m", lineup).version(key) for key in keys]
    random.shuffle(lineup)  # type: ignore[attr-defined]
    again = Traffic("m", lineup)
    assert [again.version(key) for key in keys] == first


@given(SHARES, SHARES)
@settings(deadline=None)
def test_keys_move_only_to_who_gained(before: dict[str, float], after: dict[str, float]) -> None:
    """When shares change, a key moves from one version to another only if the other's share grew against that of the first."""
    old, new = seats(**before), seats(**after)
    share_before, share_after = ({seat.version: seat.share for seat in found} for found in (old, new))
    one, two = Traffic("m", old), Traffic("m", new)
    for key in KEYS[:500]:
        had, has = one.version(key), two.version(key)
        if had != has:
            assert share_after[has] * share_before[had] > share_after.get(had, 0.0) * share_before.get(has, 0.0)


def test_a_challenger_that_grows_keeps_its_keys() -> None:
    """With one challenger, raising its share from 10 to 30 percent takes a fifth of all keys from the champion and gives none back."""
    small, large = Traffic("m", seats(v2=0.1)), Traffic("m", seats(v2=0.3))
    had, has = ({key for key in KEYS if traffic.version(key) == "v2"} for traffic in (small, large))
    assert had < has
    assert 0.18 < (len(has) - len(had)) / len(KEYS) < 0.22


def test_models_choose_independently() -> None:
    """The keys that one model sends to its challenger are no sign of what another model does with them."""
    ours, theirs = Traffic("m", seats(v2=0.5)), Traffic("other", seats(v2=0.5))
    both = sum(ours.version(key) == theirs.version(key) == "v2" for key in KEYS) / len(KEYS)
    assert 0.23 < both < 0.27


def test_the_choice_is_the_same_in_another_process() -> None:
    """Nothing of a process, such as Python's seed of hashes, goes into it."""
    code = "from tests.models.test_roles import KEYS, Traffic, seats; print([Traffic('m', seats(v2=0.4)).version(k) for k in KEYS[:50]])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    traffic = Traffic("m", seats(v2=0.4))
    assert found.stdout.strip() == str([traffic.version(key) for key in KEYS[:50]])


def test_the_edges_of_shares() -> None:
    """A share of 0 is never chosen, one of 1 always, and a champion alone answers everything."""
    assert {Traffic("m", seats(v2=0.0)).version(key) for key in KEYS[:1000]} == {"champion"}
    assert {Traffic("m", seats(v2=1.0)).version(key) for key in KEYS[:1000]} == {"v2"}
    assert {Traffic("m", seats()).version(key) for key in KEYS[:1000]} == {"champion"}


ENTITIES = st.lists(st.none() | st.binary(max_size=4), min_size=1, max_size=3)


@given(ENTITIES, ENTITIES)
def test_other_entities_are_another_key(one: list[bytes | None], two: list[bytes | None]) -> None:
    """Keys of requests are equal just when their entities are; without an entity the prediction's id decides."""
    if any(one) and any(two):
        assert (traffic_key(one, "a") == traffic_key(two, "b")) == (one == two)
    assert traffic_key([None] * len(one), "a") == traffic_key((), "a") == b"a"


def other(version: str, role: str = "challenger", share: float = 0.0) -> OtherVersion:
    """A version beside the champion."""
    return OtherVersion(version, role, f"models/m/{version}", "00", share)  # type: ignore[arg-type]


def record(champion: str, *others: OtherVersion) -> DeploymentRecord:
    """A deployment of the tests' model."""
    return DeploymentRecord("m", champion, f"models/m/{champion}", "00", 5, {}, list(others))


def test_an_older_record_is_a_champion_alone() -> None:
    """It reads as one champion with all requests, and a deployment of one version is still written in the very same bytes."""
    old = decoder(DeploymentRecord).decode(OLD)
    (champion,) = old.versions()
    assert champion == ("m", "v1", "champion", 1.0, "models/m/v1", "00")
    assert encode(old) == OLD


def test_the_champion_has_what_the_others_leave() -> None:
    """Shares are stated for challengers only, so they cannot contradict each other."""
    stated = decoder(DeploymentRecord).decode(encode(record("v1", other("v2", share=0.25), other("v3", "shadow"))))
    assert [(item.version, item.role, item.share) for item in stated.versions()] == [
        ("v1", "champion", 0.75),
        ("v2", "challenger", 0.25),
        ("v3", "shadow", 0.0),
    ]
    assert record("v1", *(other(f"c{i}", share=0.1) for i in range(10))).versions()[0].share == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        (record("v1", other("v1")), "version v1 stands twice"),
        (record("v1", other("v2"), other("v2", "shadow")), "version v2 stands twice"),
        (record("v1", other("v2", "shadow", 0.1)), "v2 is a shadow, which answers no requests, and has a share"),
        (record("v1", other("v2", share=0.6), other("v3", share=0.6)), "add up to 1.2"),
    ],
)
def test_what_cannot_be_together(stated: DeploymentRecord, says: str) -> None:
    """The error names the model and what is wrong, and a lineup that is given such a record is as before."""
    with pytest.raises(BadDeployment, match=f"model 'm'.*{says}.*; state each version once"):
        stated.versions()
    lineup = loaded([record("v1")], set())
    with pytest.raises(BadDeployment):
        lineup.deploy([stated])
    assert lineup.serving()[0] == [Seat("v1", "champion", 1.0)]


def load(lineup: Lineup[str], broken: set[str]) -> list[str]:
    """Load what a lineup asks for; a version that is broken cannot be. Returns what was tried."""
    tried = []
    while (wanted := lineup.to_load()) is not None:
        tried.append(wanted.version)
        assert len(tried) < 50
        if wanted.version in broken:
            lineup.failed(wanted.version, "broken")
        else:
            lineup.loaded(wanted.version, wanted.artifact)
    return tried


def loaded(records: Sequence[DeploymentRecord], broken: set[str]) -> Lineup[str]:
    """The lineup of a process that has just started."""
    lineup: Lineup[str] = Lineup()
    lineup.deploy(records)
    load(lineup, broken)
    return lineup


def expected(records: Sequence[DeploymentRecord], broken: set[str]) -> dict[str, tuple[str, float]]:
    """Role and share by version, said as plainly as possible."""
    newest = records[-1]
    champions = [item.version for item in reversed(records) if item.version not in broken]
    acting = champions[0] if champions else None
    serving: dict[str, tuple[str, float]] = {
        item.version: (item.role, item.share) for item in newest.others if item.version not in broken and item.version != acting
    }
    if acting is not None:
        serving[acting] = ("champion", 1 - sum(share for _, share in serving.values()))
    return serving if any(share > 0 for _, share in serving.values()) else {}


VERSIONS = ["v1", "v2", "v3", "v4", "v5"]


@st.composite
def records(draw: st.DrawFn) -> DeploymentRecord:
    """Any deployment of five versions."""
    champion, *rest = draw(st.permutations(VERSIONS))
    others = rest[: draw(st.integers(0, 3))]
    roles = [draw(st.sampled_from(["challenger", "shadow"])) for _ in others]
    return record(champion, *(other(name, role, 0.125 if role == "challenger" else 0.0) for name, role in zip(others, roles, strict=True)))


HISTORIES = st.lists(records(), min_size=1, max_size=6)


@pytest.mark.slow
@given(HISTORIES, st.sets(st.sampled_from(VERSIONS)))
@settings(max_examples=300)
def test_whoever_followed_and_whoever_restarts_serve_the_same(history: list[DeploymentRecord], broken: set[str]) -> None:
    """After any deployments, followed one by one, read at a start, or read again after Kafka was away, the oracle's versions serve."""
    follower: Lineup[str] = Lineup()
    for item in history:
        follower.deploy([item])
        load(follower, broken)
    restarted = loaded(history, broken)
    reader_again = loaded(history[: len(history) // 2 + 1], broken)
    reader_again.deploy(history)
    load(reader_again, broken)
    for lineup in (follower, restarted, reader_again):
        found, held = lineup.serving()
        assert {seat.version: (seat.role, seat.share) for seat in found} == expected(history, broken)
        assert held == {seat.version: f"models/m/{seat.version}" for seat in found}
        assert lineup.failures == {item.version: "broken" for item in history[-1].versions() if item.version in broken}


@given(HISTORIES, st.sets(st.sampled_from(VERSIONS)))
def test_what_is_repaired_serves_after_a_retry(history: list[DeploymentRecord], broken: set[str]) -> None:
    """Once all files are whole, a retry brings exactly what the newest deployment states, and keeps nothing else."""
    lineup = loaded(history, broken)
    lineup.retry()
    load(lineup, set())
    newest = history[-1].versions()
    assert lineup.serving()[0] == [Seat(item.version, item.role, item.share) for item in newest]
    assert lineup.to_load() is None
    assert lineup._held.keys() == {item.version for item in newest}


@given(HISTORIES, st.sets(st.sampled_from(VERSIONS)))
def test_nothing_is_loaded_that_is_not_needed(history: list[DeploymentRecord], broken: set[str]) -> None:
    """A start loads the newest deployment's versions, each once, and earlier champions only while none is found that works."""
    lineup: Lineup[str] = Lineup()
    lineup.deploy(history)
    tried = load(lineup, broken)
    newest = [item.version for item in history[-1].versions()]
    assert tried[: len(newest)] == newest
    assert len(tried) == len(set(tried))
    assert set(tried[len(newest) : -1]) <= broken
    if newest[0] not in broken:
        assert tried == newest


def test_a_former_champion_stands_in_until_the_new_one_can_be_loaded() -> None:
    """It keeps the champion's share beside the new challenger, and is released when the new champion is there."""
    lineup = loaded([record("v1")], set())
    lineup.deploy([record("v2", other("v3", share=0.25))])
    assert lineup.serving()[0] == [Seat("v1", "champion", 1.0)]
    load(lineup, {"v2"})
    assert lineup.serving()[0] == [Seat("v1", "champion", 0.75), Seat("v3", "challenger", 0.25)]
    lineup.retry()
    load(lineup, set())
    assert lineup.serving()[0] == [Seat("v2", "champion", 0.75), Seat("v3", "challenger", 0.25)]
    assert lineup._held.keys() == {"v2", "v3"}


def test_the_reason_stands_while_a_version_is_tried_again() -> None:
    """Whoever asks in the meantime is told why it does not serve; it goes when the version is loaded, or is no longer deployed."""
    lineup = loaded([record("v1")], {"v1"})
    lineup.retry()
    assert lineup.to_load() is not None
    assert lineup.failures == {"v1": "broken"}
    lineup.deploy([record("v1", other("v2"))])
    assert lineup.failures == {"v1": "broken"}
    assert load(lineup, set()) == ["v1", "v2"]
    assert lineup.failures == {}
    lineup = loaded([record("v1")], {"v1"})
    lineup.deploy([record("v2")])
    assert lineup.failures == {}


def test_a_new_deployment_tries_again_what_failed() -> None:
    """Files that were repaired meanwhile are found: of a version that stays deployed, and of an earlier champion that has to stand in."""
    lineup = loaded([record("v1"), record("v2")], {"v1", "v2"})
    assert lineup.serving() == ([], {})
    lineup.deploy([record("v2", other("v3", "shadow"))])
    assert load(lineup, {"v2"}) == ["v2", "v3", "v1"]
    assert lineup.serving()[0] == [Seat("v1", "champion", 1.0), Seat("v3", "shadow", 0.0)]


def test_earlier_champions_are_remembered_once() -> None:
    """However often two versions take turns, a lineup keeps two of them, the newer first."""
    lineup = loaded([record("v1"), record("v2")] * 50, {"v1", "v2"})
    assert [item.version for item in lineup._former] == ["v1", "v2"]


def test_shares_that_add_up_to_more_by_rounding() -> None:
    """Where the challengers take all, the champion has a share of 0, never less."""
    ten = [other(f"c{i}", share=math.nextafter(0.1, 1)) for i in range(10)]
    seats_found, _ = loaded([record("v1", *ten)], set()).serving()
    assert math.fsum(item.share for item in ten) > 1
    assert seats_found[0] == Seat("v1", "champion", 0.0)


def test_without_any_champion_the_challengers_answer() -> None:
    """They share all requests in proportion; shadows alone do not make a model that serves."""
    stated = record("v1", other("v2", share=0.1), other("v3", share=0.3), other("v4", "shadow"))
    found, _ = loaded([stated], {"v1"}).serving()
    counts = Counter(Traffic("m", found).version(key) for key in KEYS)
    assert counts["v3"] / len(KEYS) == pytest.approx(0.75, abs=0.02)
    assert loaded([stated], {"v1", "v2", "v3"}).serving() == ([], {})


def test_a_challenger_is_promoted_without_being_loaded_again() -> None:
    """A change of roles among versions that are loaded loads nothing."""
    lineup = loaded([record("v1", other("v2", share=0.5))], set())
    lineup.deploy([record("v2", other("v1", "shadow"))])
    assert lineup.serving()[0] == [Seat("v2", "champion", 1.0), Seat("v1", "shadow", 0.0)]
    assert load(lineup, set()) == []


def test_a_record_with_an_unknown_role_is_refused() -> None:
    """Only the roles of the schema can be written."""
    with pytest.raises(msgspec.ValidationError, match="role"):
        decoder(DeploymentRecord).decode(encode(record("v1", other("v2"))).replace(b"challenger", b"stranger"))
