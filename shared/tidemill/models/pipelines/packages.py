"""Whether this environment is the one in which a pipeline was pickled, and what is different."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from tidemill.declarations.project import loaded_file
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Manifest, PythonEngine


class OtherPackage(NamedTuple):
    """A package that was another when the pipeline was pickled. `now`: "" for one that is not installed."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} {self.now} in the place of {self.then}"


def python_version() -> str:
    """The version of Python as far as pickles and compiled packages depend on it."""
    return platform.python_version().rpartition(".")[0]


def other_packages(made: PythonEngine) -> list[OtherPackage]:
    """What is not as it was."""
    found = [OtherPackage(name, then, _installed(name)) for name, then in made.packages.items()]
    return [one for one in found if one.then != one.now]


def checked_packages(label: str, made: PythonEngine) -> list[OtherPackage]:
    """What is not as it was, and may serve all the same. Raises ArtifactError for a package that is not there, and for another Python."""
    if made.python != python_version():
        raise ArtifactError(
            f"{label} is served by its own pipeline, which Python {made.python} wrote, and this is Python {python_version()}",
            mend=f"serve it with Python {made.python}, or train it again with this one",
        )
    others = other_packages(made)
    if lacking := [one for one in others if not one.now]:
        raise ArtifactError(
            f"{label} is served by its own pipeline, which needs {', '.join(one.name for one in lacking)}, and that is not installed here",
            mend=installing(others),
        )
    return others


def how_served(manifest: Manifest) -> str:
    """What is to be said of a version that its own pipeline serves; "" of one that ONNX serves."""
    own = manifest.own_pipeline
    if own is None:
        return ""
    packages = ", ".join(f"{name} {version}" for name, version in own.packages.items())
    others = ", ".join(map(str, other_packages(own)))
    said = f"python engine, slower: its own pipeline, of Python {own.python}, {packages}" + (f"; here {others}" if others else "")
    return f"{said}; online: {learned_since(manifest)}" if manifest.learning else said


def learned_since(manifest: Manifest) -> str:
    """How much a version learned after its line was trained; "" of one that does not go on learning."""
    found = manifest.learning
    if found is None:
        return ""
    left_out = f", {found.left_out:,} left out" if found.left_out else ""
    return f"{found.learned:,} outcomes learned{left_out}" + (f" since {found.line}" if found.line != manifest.version else "")


def installing(others: Iterable[OtherPackage]) -> str:
    """The command that makes packages what they were."""
    return f"run: pip install {' '.join(f'{one.name}=={one.then}' for one in others)}"


def project_file(label: str, module: str) -> str:
    """The file of the project that a pickle needs; "" when it needs none. Raises ArtifactError when this process has loaded no such project."""
    if not module:
        return ""
    file = loaded_file(module)
    if file is None:
        raise ArtifactError(f"the pipeline of {label} uses code of its project, and none is loaded here", mend="name it with --project")
    return str(file)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
