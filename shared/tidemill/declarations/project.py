"""Loading a project: one Python module of declarations, in a folder, a file or an installed package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from itertools import chain
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from tidemill.declarations import Event, FeatureView, Model, Recording, Selection
from tidemill.declarations.checks import Declaration, Made, noted
from tidemill.declarations.mistakes import mistake
from tidemill.declarations.topics import check_deletes, check_shared
from tidemill.errors import DeclarationError, ProjectError, TidemillError
from tidemill.names import check_name, version_name

T = TypeVar("T", Event, FeatureView, Model, Recording)
_MODULE = "tidemill_project_"
_folders: set[Path] = set()  # of the projects loaded in this process


@dataclass(frozen=True)
class Project:
    """All declarations of a project by name. `root`: its folder (None: an installed module). `catalogue`: the number of
    the record of the catalogue that holds them; 0: they come from the project's file."""

    name: str
    events: dict[str, Event] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    recordings: dict[str, Recording] = field(default_factory=dict)
    root: Path | None = None
    catalogue: int = 0

    def views_of(self, event: Event) -> list[FeatureView]:
        """The views that fold an event."""
        return [view for view in self.views.values() if view.source is event]

    @property
    def named_views(self) -> dict[str, FeatureView]:
        """The views by all names that a request may use: the plain name and `<view>@latest` for the version in force, and
        `<view>@v<version>` for any version."""
        found = dict(self.views)
        for view in self.views.values():
            found[version_name(view.plain_name, view.version)] = view
            if view.in_force:
                found[f"{view.name}@latest"] = view
        return found


def load_project(spec: str | Path) -> Project:
    """Loads a project from its folder (which holds project.py), its file, or the dotted name of an installed module.

    The project's name is the module's PROJECT, or else the name of the folder. Raises ProjectError or DeclarationError.
    """
    path = Path(spec)
    if path.is_dir():
        path = path / "project.py"
        if not path.is_file():
            raise ProjectError(f"{path.parent} has no project.py", mend="write your declarations into project.py, or pass the file itself")
    if path.suffix == ".py":
        if not path.is_file():
            raise ProjectError(
                f"there is no file {path}", mend="pass --project (or TIDEMILL_PROJECT) a folder with project.py, a file or a module"
            )
        return collect(_import_file(path.resolve()), path.resolve())
    mend = "check --project or TIDEMILL_PROJECT"
    if not all(part.isidentifier() for part in str(spec).split(".")):
        raise ProjectError(f"there is no folder or file {str(spec)!r}", mend=mend)
    try:
        with noted() as made:
            module = importlib.import_module(str(spec))
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{spec}.".startswith(f"{error.name}."):
            raise ProjectError(f"no folder, file or module {str(spec)!r}: {error}", mend=mend) from error
        raise _unimportable(str(spec), error, _folder_of(str(spec))) from error
    _keep(module, made)
    return collect(module, None)


class _FromSource(SourceFileLoader):
    """Compiles the file at each load. Python takes a compiled file for current when size and whole second of the source agree, so an edit
    that follows a load within a second, `paid` to `sold` for one, would be passed over."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def module_of(path: Path) -> str:
    """The name under which a project's file is imported."""
    return f"{_MODULE}{path.parent.name}_{path.stem}".replace("-", "_")


def loaded_file(module: str) -> Path | None:
    """The file of the project that this process has loaded under a module's name; where another name is asked for, as on another machine, the
    only project that was loaded from a file. None when there is none, or several."""
    found = {name: Path(one.__file__) for name, one in sys.modules.items() if name.startswith(_MODULE) and one.__file__}
    return found.get(module) or (next(iter(found.values())) if len(found) == 1 else None)


def is_project_module(module: str) -> bool:
    """Whether a module's name is that of a project's file."""
    return module.startswith(_MODULE)


def _import_file(path: Path) -> ModuleType:
    """Imports a file, with its folder first on the path so that it can import the files beside it."""
    _make_room(path.parent)
    name = module_of(path)
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with noted() as made:
            spec.loader.exec_module(module)
    except Exception as error:
        raise _unimportable(str(path), error, path.parent) from error
    _keep(module, made)
    return module


def _keep(module: ModuleType, made: list[Made]) -> None:
    """Gives a module that was imported just now a list of what it declared, itself or by the functions that it called."""
    if made:
        vars(module)["__declared__"] = [one for name, one in made if name == module.__name__]


def _make_room(folder: Path) -> None:
    """Puts a project's folder first on the path, and forgets modules that an earlier project imported from its own folder under a name
    that a file here has: each project means its own `model.py`."""
    others = _folders - {folder}
    for name in {beside.stem for beside in folder.iterdir()} & sys.modules.keys():
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and others & {Path(file).parent, Path(file).parent.parent}:  # a module, or a package
            for found in [found for found in sys.modules if f"{found}.".startswith(f"{name}.")]:
                del sys.modules[found]
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    _folders.add(folder)
    importlib.invalidate_caches()  # files that came after Python last listed the folder


def _unimportable(what: str, error: Exception, folder: Path | None) -> TidemillError:
    return error if isinstance(error, TidemillError) else mistake(what, error, folder)


def _folder_of(module: str) -> Path | None:
    """The folder of a module that may not be importable."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # of a package above it
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def collect(module: ModuleType, path: Path | None) -> Project:
    """Collects the declarations of a module, and those that they refer to, and checks them against each other.

    They are found by name, in lists, tuples, sets and dicts that have a name, and, without any name, by being made by the module while it
    was loaded, not by another module that it imported. One without a name is passed over if one of its kind with a name is called the same: the name means another one now.
    """
    found = list(_named(module))
    models = [item for item in found if isinstance(item, Model)]
    views = [item for item in found if isinstance(item, FeatureView)] + [item.view for item in found if isinstance(item, Selection)]
    views += [view for model in models for view in model.views]
    events = [item for item in found if isinstance(item, Event)] + [view.source for view in views]
    events += [event for model in models for event in (model.on, model.outcome.source)]
    name = getattr(module, "PROJECT", None) or (path.parent.name if path else module.__name__.rpartition(".")[2]).replace("-", "_")
    check_name(name, str(path or module.__name__), "PROJECT")
    project = Project(
        name, _by_name(events), _by_name(views), _by_name(models), _by_name([item for item in found if isinstance(item, Recording)]),
        path.parent if path else None,
    )  # fmt: skip
    if not project.events:
        raise ProjectError(
            f"{path or module.__name__} declares no Event",
            mend="declare at least one Event and one FeatureView at the top level of the module",
        )
    check_shared(project.events.values())
    check_deletes(project.views.values())
    return project


def _named(module: ModuleType) -> Iterator[Declaration]:
    """The declarations of a module, each once, in order; at last those that have no name."""
    scope = dict(vars(module))
    unnamed = scope.pop("__declared__", [])
    found = {id(one): one for one in _within(scope, set())}
    taken = {(type(one), getattr(one, "name", None)) for one in found.values()}
    yield from found.values()
    yield from (one for one in unnamed if id(one) not in found and (type(one), getattr(one, "name", None)) not in taken)


def _within(value: object, seen: set[int]) -> Iterator[Declaration]:
    """The declarations in a value: itself, or those that it contains."""
    if isinstance(value, Declaration):
        yield value
    elif isinstance(value, list | tuple | set | frozenset | Mapping) and id(value) not in seen:
        seen.add(id(value))
        for part in chain(value, value.values()) if isinstance(value, Mapping) else value:
            yield from _within(part, seen)


def _by_name(items: list[T]) -> dict[str, T]:
    named: dict[str, T] = {}
    for item in items:
        if named.setdefault(item.name, item) is not item:
            raise DeclarationError(
                f"{type(item).__name__} {item.name!r} is declared twice (also at {named[item.name].declared_at})",
                where=item.declared_at,
                field="name",
                mend="give one another name",
            )
    return named
