"""Mistakes of Python in a project's file, told as mistakes of a declaration are: file and line, the line itself, and the nearest right name."""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from types import FrameType, TracebackType
from typing import Any

from tidemill.declarations.checks import did_you_mean, source_line
from tidemill.errors import ProjectError

_UNEXPECTED = re.compile(r"(?:\w+\.)*(\w+)\(\) got an unexpected keyword argument '(\w+)'")
_NOT_THERE = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def mistake(what: str, error: Exception, folder: Path | None) -> ProjectError:
    """The error for a project that Python cannot import. `what`: the file or module; `folder`: where its files lie, among which the line is
    looked for."""
    frame, line = _last_line(error.__traceback__, folder)
    path = what if frame is None else frame.f_code.co_filename
    if isinstance(error, SyntaxError) and error.lineno is not None:
        path, line = error.filename or what, error.lineno
    place, source = (f"{path}:{line}", source_line(f"{path}:{line}")) if line else (what, "")
    text = f"{place}: {type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    return ProjectError(text + (f", in: {source}" if source else ""), mend=_meant(error, frame) or "correct this line")


def _last_line(trace: TracebackType | None, folder: Path | None) -> tuple[FrameType | None, int]:
    """The innermost frame in the project's files, and its line."""
    found: tuple[FrameType | None, int] = None, 0
    for frame, line in walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if folder is not None and file.is_relative_to(folder) and "site-packages" not in file.relative_to(folder).parts:
            found = frame, line
    return found


def _meant(error: Exception, frame: FrameType | None) -> str:
    """What the person meant, as far as the names tell."""
    scope: dict[str, Any] = {} if frame is None else {**vars(builtins), **frame.f_globals, **frame.f_locals}
    if isinstance(error, NameError) and error.name:
        ours = import_module("tidemill").__all__
        if error.name in ours:
            return f"import it: from tidemill import {error.name}"
        return did_you_mean(error.name, [*(scope.keys() - vars(builtins).keys()), *ours, *vars(builtins)])
    if isinstance(error, AttributeError) and error.name:
        return did_you_mean(error.name, [name for name in dir(error.obj) if not name.startswith("_")])
    if isinstance(error, ImportError):
        if wrong := _NOT_THERE.match(str(error)):
            return did_you_mean(wrong[1], dir(sys.modules.get(wrong[2])))
        beside = [path.stem for path in Path(frame.f_code.co_filename).parent.glob("*.py")] if frame else []
        return (
            did_you_mean(error.name or "", ["tidemill", *beside, *sys.stdlib_module_names]) or f"install {error.name}, or correct this line"
        )
    if isinstance(error, TypeError) and (wrong := _UNEXPECTED.match(str(error))):
        return did_you_mean(wrong[2], _arguments(wrong[1], scope), "{}=")
    return ""


def _arguments(name: str, scope: dict[str, Any]) -> list[str]:
    """The arguments of a function that can be called by this name, itself or through `tidemill`."""
    try:
        return list(inspect.signature(scope.get(name) or getattr(import_module("tidemill"), name)).parameters)
    except (AttributeError, TypeError, ValueError):
        return []
