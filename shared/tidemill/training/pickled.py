"""A fitted pipeline as the pickle by which it serves itself, and what that pickle needs."""

from __future__ import annotations

import io
import pickle
from importlib.metadata import packages_distributions, version
from typing import Any, NamedTuple

from tidemill.declarations import Model
from tidemill.declarations.project import is_project_module
from tidemill.errors import TidemillError
from tidemill.models.artifact import PythonEngine
from tidemill.models.pipelines.packages import python_version
from tidemill.training.fitting import Fitted
from tidemill.training.frames import names_columns
from tidemill.training.mends import WORDS_MEND
from tidemill.training.one_by_one import served_form
from tidemill.training.stages.files import digest_of
from tidemill.training.steps import steps_of

_ALWAYS = ("numpy", "scikit-learn")
_NAMED = "define functions and classes of a pipeline by name, in the project's file or beside it"


class PickledPipeline(NamedTuple):
    """A pickle, and what the manifest says of it."""

    file: bytes
    made: PythonEngine


def pickled_form(model: Model, fitted: Fitted) -> PickledPipeline:
    """Pickles a fitted pipeline, and loads it once. Raises TidemillError for one that cannot be pickled, or whose code a worker would not find."""
    for step in steps_of(fitted.pipeline):
        if hasattr(step.estimator, "vocabulary_"):
            raise TidemillError(
                f"model {model.name!r}: {step.title} takes words, but a text that was not there in training has no words when it is served",
                mend=WORDS_MEND,
            )
    try:
        file = pickle.dumps(served_form(fitted.pipeline), protocol=5)
        modules = modules_of(file)
    except MemoryError:
        raise
    except Exception as error:  # whatever the project's objects raise
        raise TidemillError(
            f"model {model.name!r}: its pipeline cannot be pickled: {type(error).__name__}: {error}", mend=_NAMED
        ) from error
    if "__main__" in modules:
        raise TidemillError(
            f"model {model.name!r}: its pipeline uses code of the program that was started, which no worker has", mend=_NAMED
        )
    frame = names_columns(fitted.pipeline)
    own = next((name for name in sorted(modules) if is_project_module(name)), "")
    return PickledPipeline(file, PythonEngine(digest_of(file), python_version(), packages_of(modules, frame=frame), frame, own))


def modules_of(pickled: bytes) -> set[str]:
    """The modules whose classes and functions a pickle names. It is loaded: only for one's own."""
    found = set[str]()

    class Listing(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.add(module)
            return super().find_class(module, name)

    Listing(io.BytesIO(pickled)).load()
    return found


def packages_of(modules: set[str], *, frame: bool) -> dict[str, str]:
    """The versions of the packages that have these modules, and of those that every worker uses."""
    by_module = packages_distributions()
    names = {name for module in modules for name in by_module.get(module.partition(".")[0], ())} - {"tidemill"}
    return {name: version(name) for name in sorted({*names, *_ALWAYS, *(("pandas",) if frame else ())})}
