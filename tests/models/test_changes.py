"""What a person does with versions, against a naive account of who is champion, who is beside it, and who was champion before."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import DeploymentRefused
from tidemill.models import changes
from tidemill.models.changes import StoredVersion
from tidemill.records import DeploymentRecord, decoder, encode

NAMES = [f"v{i}" for i in range(5)]
STEP = st.tuples(
    st.sampled_from(["deploy", "shadow", "canary", "promote", "succeed", "rollback", "retire"]),
    st.sampled_from(NAMES),
    st.sampled_from([0.05, 0.4, 1.0]),
)


def stored(version: str) -> StoredVersion:
    """A version in the offline store."""
    return StoredVersion("m", version, f"models/m/{version}", f"sha of {version}", {"auc": 0.5})


def act(history: list[DeploymentRecord], action: str, version: str, share: float = 0.1) -> DeploymentRecord:
    """The deployment that an action makes."""
    now, at_ms = history[-1] if history else None, 1_000 + len(history)
    if action == "deploy":
        return changes.deploy(stored(version), at_ms)
    if action in ("promote", "succeed"):
        return changes.promote(now, stored(version), at_ms, keep=action == "succeed")
    if action == "rollback":
        return changes.roll_back(history, at_ms)
    if action == "retire":
        return changes.retire(now, "m", version, at_ms)
    return changes.beside(now, stored(version), share if action == "canary" else None, at_ms)


@dataclass
class Account:
    """Who serves: the champions of now and before, the newest last; and the others with their shares (a shadow's is None)."""

    champions: list[str] = field(default_factory=list)
    others: dict[str, float | None] = field(default_factory=dict)

    def may(self, action: str, version: str, share: float) -> bool:
        """Whether an action makes sense."""
        champion = self.champions[-1:] == [version]
        if action == "rollback":
            return len(self.champions) > 1
        if action == "retire":
            return version in self.others
        if action == "canary":
            given = sum(other or 0 for name, other in self.others.items() if name != version)
            return bool(self.champions) and not champion and given + share <= 1
        return action == "deploy" or (not champion and (action in ("promote", "succeed") or bool(self.champions)))

    def take(self, action: str, version: str, share: float) -> None:
        """Does it."""
        if action == "rollback":
            self.champions.pop()
            self.others.pop(self.champions[-1], None)
        elif action in ("deploy", "promote", "succeed"):
            self.others = {} if action == "deploy" else self.others
            self.others.pop(version, None)
            if action == "succeed":  # the champion of before is a shadow
                self.others |= dict.fromkeys(self.champions[-1:])
            if self.champions[-1:] != [version]:
                self.champions.append(version)
        elif action == "retire":
            del self.others[version]
        else:
            self.others.pop(version, None)
            self.others[version] = share if action == "canary" else None


@given(st.lists(STEP, max_size=25))
def test_every_step_is_that_of_the_account(steps: list[tuple[str, str, float]]) -> None:
    """Whatever is done in whatever order: what makes no sense is refused and changes nothing, else just the versions of the account serve."""
    account, history = Account(), list[DeploymentRecord]()
    for action, version, share in steps:
        if not account.may(action, version, share):
            with pytest.raises(DeploymentRefused, match="model "):
                act(history, action, version, share)
            continue
        account.take(action, version, share)
        history.append(decoder(DeploymentRecord).decode(encode(act(history, action, version, share))))
        champion, *others = history[-1].versions()
        assert champion.version == account.champions[-1]
        assert {other.version: other.share if other.role == "challenger" else None for other in others} == account.others
        assert champion.share == pytest.approx(1 - sum(share or 0 for share in account.others.values()))
        assert all(
            (item.artifact, item.sha256) == (f"models/m/{item.version}", f"sha of {item.version}") for item in history[-1].versions()
        )
        assert history[-1].deployed == 1_000 + len(history) - 1


@pytest.mark.parametrize(
    ("done", "action", "version", "says"),
    [
        ([], "shadow", "v1", r"no version of it serves; run: tidemill models deploy m@v1"),
        ([], "rollback", "v1", "no champion came before; see: tidemill models list"),
        ([("deploy", "v1")], "rollback", "v1", "no champion came before"),
        ([("deploy", "v1")], "promote", "v1", "v1 is the champion already; nothing to do"),
        ([("deploy", "v1")], "canary", "v1", "v1 is the champion; promote another version first"),
        ([("deploy", "v1")], "retire", "v1", "v1 is the champion; promote another version, or roll back, first"),
        ([("deploy", "v1")], "retire", "v2", "v2 does not serve; these do: v1"),
    ],
)
def test_refusals_say_what_to_do(done: list[tuple[str, str]], action: str, version: str, says: str) -> None:
    """Each names the model, what is in the way, and the mend."""
    history = list[DeploymentRecord]()
    for step in done:
        history.append(act(history, *step))
    with pytest.raises(DeploymentRefused, match=says):
        act(history, action, version)


def test_back_to_where_one_came_from() -> None:
    """An older version that is promoted again is no rollback: a rollback after it goes to the version that it replaced."""
    history = list[DeploymentRecord]()
    for action, version in [("deploy", "v1"), ("deploy", "v2"), ("deploy", "v3"), ("promote", "v2"), ("rollback", ""), ("rollback", "")]:
        history.append(act(history, action, version))
    assert [record.version for record in history[3:]] == ["v2", "v3", "v2"]
    history.append(act(history, "shadow", "v3"))
    history.append(act(history, "rollback", ""))
    assert history[-1].version == "v1"


def test_shares_that_are_too_much_are_named() -> None:
    """The challengers that are there are told with their shares."""
    history = [changes.deploy(stored("v0"), 1)]
    history.append(changes.beside(history[-1], stored("v1"), 0.7, 2))
    with pytest.raises(DeploymentRefused, match=r"would add up to 1.1 \(v1 0.7\); give less"):
        changes.beside(history[-1], stored("v2"), 0.4, 3)
