"""What is raised when a worker gives no answer."""

from __future__ import annotations

from tidemill.errors import Unavailable


class EngineUnavailable(Unavailable):
    """The worker process of a model that is served by its own pipeline gave no answer. `kind`: "hangs", "ended", "memory" or "busy"."""

    def __init__(self, label: str, told: str, *, mend: str = "retry: another worker is started", kind: str = "busy") -> None:
        super().__init__(f"the python engine of model {label} gave no answer: {told}", mend=mend)
        self.kind = kind
