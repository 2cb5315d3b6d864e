"""Whether a model learns with each outcome, and what its snapshots must show. Only Python knows it: it is not in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from tidemill.declarations.checks import Declaration, duration_ms
from tidemill.declarations.retrain import Retrain
from tidemill.declarations.training import Training
from tidemill.errors import DeclarationError
from tidemill.retrainings import LossName


@dataclass(frozen=True, eq=False)
class Online(Declaration):
    """A model goes on learning after its training: a process beside the services learns each outcome with the inputs of its prediction.

    `every`: after so many outcomes a snapshot of what was learned may become a version; `megabytes`: the largest pickle of a snapshot: a pipeline that
    grows beyond it learns no more; `seconds`: the longest that one outcome may take to be learned: one that takes longer is left out.

    What a snapshot must show, as in `Retrain`: `budget`, `loss`, `clip`, `least`, `most`, `horizon`, `cluster`, `segments`, `steps`, `slower`. `rest`: the least time
    from the end of a run to the next, and between two snapshots that become versions, since each stays on disk. With no `steps` a snapshot that is shown to be better answers all requests at once.
    """

    _: KW_ONLY
    every: int = 500
    megabytes: float = 16.0
    seconds: float = 5.0
    rest: str = "10m"
    steps: Sequence[float] = ()
    budget: float = 0.05
    loss: LossName | None = None
    clip: float | None = None
    least: int = 200
    most: int = 50_000
    horizon: str = "14d"
    cluster: str | None = None
    segments: Sequence[str] | None = None
    slower: float = 3.0

    name = "of a model"

    def __post_init__(self) -> None:
        for label in ("every", "megabytes", "seconds"):
            if getattr(self, label) <= 0:
                self._fail(label, f"{getattr(self, label)!r} is not above 0", "write a number above 0")
        duration_ms(self, "rest", self.rest)
        self.policy  # noqa: B018 - what both declare is checked there

    @property
    def policy(self) -> Retrain:
        """What the gate asks of its snapshots, as of any new version."""
        return Retrain(
            on=(), rest=self.rest, steps=self.steps, budget=self.budget, loss=self.loss, clip=self.clip, least=self.least, most=self.most,
            horizon=self.horizon, cluster=self.cluster, segments=self.segments, slower=self.slower,
        )  # fmt: skip

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Online: {message}", where=self.declared_at, field=name, mend=mend)


def mistake(engine: str, training: Training, *, retrained: bool, pipeline: bool) -> tuple[str, str] | None:
    """What is wrong in a model that learns with each outcome, and what mends it. `retrained`, `pipeline`: whether it declares them."""
    if engine != "python":
        return "a model that learns with each outcome is served by its own pipeline", 'add engine="python"'
    if not pipeline:
        return "a model without a pipeline cannot learn", "give it a pipeline of river, or leave online out"
    if retrained:
        return "a model that learns with each outcome is not trained again by itself", "leave online or retrain out"
    unlike = [name for name in ("search", "select", "weights") if getattr(training, name) is not None]
    return (f"outcomes are learned without {unlike[0]}", f"leave {unlike[0]} of training out") if unlike else None
